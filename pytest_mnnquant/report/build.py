"""Builds the report of a run, once, from the records of its items."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_mnnquant.findings.check_metrics import Metrics
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, SKIPPED
from pytest_mnnquant.measurements.chart_samples import ChartSamples
from pytest_mnnquant.report.model import BaselineReport, HostReport, ModelReport, Report
from pytest_mnnquant.report.modes import compare_modes
from pytest_mnnquant.report.record import CheckRecord
from pytest_mnnquant.report.target_table import target_rows
from pytest_mnnquant.report.variant_report import CheckReport, ReportedFinding, VariantReport

_WORST_FIRST: Final = (FAILED, INCONCLUSIVE, PASSED, SKIPPED)


def build_report(
    records: Sequence[CheckRecord],
    versions: Mapping[str, str],
    strict: bool = False,
    baseline: BaselineReport | None = None,
) -> Report:
    """The report of a run from the records of its items. `baseline` is the report of the baseline file."""
    host = HostReport(platform.machine(), platform.system(), platform.python_version(), os.cpu_count())
    return Report(dict(versions), host, strict, baseline, build_models(records))


def build_models(records: Sequence[CheckRecord]) -> tuple[ModelReport, ...]:
    """The models of a run with their variants, in the order of their first records."""
    by_model: dict[str, list[CheckRecord]] = {}
    for record in _one_per_check(records):
        by_model.setdefault(record.model, []).append(record)
    return tuple(map(_model, by_model.values()))


def _model(records: Sequence[CheckRecord]) -> ModelReport:
    by_variant: dict[str, list[CheckRecord]] = {}
    for record in records:
        by_variant.setdefault(record.variant.label, []).append(record)
    variants = tuple(map(_variant, by_variant.values()))
    first = records[0]
    return ModelReport(
        name=first.model,
        source=first.source,
        file=first.file,
        base=first.base,
        variants=variants,
        modes=compare_modes(variants),
        targets=target_rows(variants),
    )


def _variant(records: Sequence[CheckRecord]) -> VariantReport:
    charts = ChartSamples()
    for record in records:
        charts = charts.with_parts_of(record.charts)
    checks = with_consequences([record.check for record in records])
    return dataclasses.replace(records[0].variant, checks=checks, charts=charts)


def _one_per_check(records: Sequence[CheckRecord]) -> list[CheckRecord]:
    """One record per check of a variant, even if several tests ran it: the worst outcome, and all findings.

    If an item ran again (its `order` is the same), the last run counts.
    """
    last_runs = {(record.model, record.variant.label, record.check.check, record.order): record for record in records}
    merged: dict[tuple[str, str, str], CheckRecord] = {}
    for (model, label, check, _), record in last_runs.items():
        before = merged.get((model, label, check))
        merged[model, label, check] = record if before is None else _merged(before, record)
    return list(merged.values())


def _merged(before: CheckRecord, after: CheckRecord) -> CheckRecord:
    """Two records of one check of a variant as one."""
    pair = (before.check, after.check)
    ranks = [_WORST_FIRST.index(check.outcome) for check in pair]
    worst, other = pair if ranks[0] < ranks[1] else pair[::-1]  # If both are equal, the later one.
    more = [finding for finding in other.findings if finding not in worst.findings]
    check = dataclasses.replace(
        worst,
        findings=(*worst.findings, *more),
        metrics=_merged_metrics(worst.metrics, other.metrics),
        ignored={**other.ignored, **worst.ignored},
    )
    charts = before.charts if after.charts == ChartSamples() else after.charts
    return dataclasses.replace(after, check=check, charts=charts)


def _merged_metrics(worst: Metrics | None, other: Metrics | None) -> Metrics | None:
    """The metrics of `worst`, and those that only `other` has."""
    if worst is None or other is None:
        return worst or other
    return type(worst).from_json({**other.as_json(), **worst.as_json()})


def with_consequences(checks: Sequence[CheckReport]) -> tuple[CheckReport, ...]:
    """The checks of a variant; each error lists its consequences in all of them, in any order of execution."""
    every = [finding for check in checks for finding in check.findings]
    return tuple(
        dataclasses.replace(check, findings=tuple(_joined(finding, every) for finding in check.findings))
        for check in checks
    )


def _joined(finding: ReportedFinding, every: Sequence[ReportedFinding]) -> ReportedFinding:
    known = {effect.id for effect in finding.consequences}
    more = tuple(other for other in every if other.follows == finding.id and other.id not in known)
    return dataclasses.replace(finding, consequences=(*finding.consequences, *more))
