"""Builds the report of a run, once, from the records of its items. Records are JSON: they travel from xdist workers."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_mnnquant.findings.check_registry import check_named
from pytest_mnnquant.findings.dataclass_json import from_json
from pytest_mnnquant.findings.figures import variant_label
from pytest_mnnquant.findings.finding import (
    FAILED,
    FOLLOWS_ID,
    INCONCLUSIVE,
    NOT_APPLICABLE,
    PASSED,
    SKIPPED,
    FindingId,
)
from pytest_mnnquant.findings.rules import Severity
from pytest_mnnquant.measurements.chart_samples import ChartSamples
from pytest_mnnquant.report.model import BaselineReport, HostReport, ModelReport, Report
from pytest_mnnquant.report.modes import compare_modes
from pytest_mnnquant.report.target_table import target_rows
from pytest_mnnquant.report.variant_report import (
    CheckReport,
    LayerReport,
    ModelFile,
    ParamsFile,
    ReportedFinding,
    VariantReport,
)

Record = Mapping[str, Any]
_WORST_FIRST: Final = (FAILED, INCONCLUSIVE, PASSED, SKIPPED)


def build_report(
    records: Sequence[Record],
    versions: Mapping[str, str],
    strict: bool = False,
    baseline: Record | None = None,
) -> Report:
    """The report of a run from the records of its items. `baseline` is that of the baseline file's own item."""
    host = HostReport(platform.machine(), platform.system(), platform.python_version(), os.cpu_count())
    checked_file = BaselineReport(baseline["path"], check_report(baseline["check"])) if baseline else None
    return Report(dict(versions), host, strict, checked_file, build_models(records))


def build_models(records: Sequence[Record]) -> tuple[ModelReport, ...]:
    """The models of a run with their variants, in the order of their first records."""
    by_model: dict[str, list[Record]] = {}
    for record in _one_per_check(records):
        by_model.setdefault(record["model"], []).append(record)
    return tuple(_model(name, of_model) for name, of_model in by_model.items())


def _model(name: str, records: Sequence[Record]) -> ModelReport:
    by_variant: dict[str, list[Record]] = {}
    for record in records:
        by_variant.setdefault(_label(record), []).append(record)
    variants = tuple(map(_variant, by_variant.values()))
    first = records[0]
    return ModelReport(
        name=name,
        source=first["source"],
        file=first["file"],
        base=from_json(ModelFile, first["float"]),
        variants=variants,
        modes=compare_modes(variants),
        targets=target_rows(variants),
    )


def _label(record: Record) -> str:
    variant = record["variant"]
    return variant_label(variant["recipe"], variant["mode"], variant.get("target", ""))


def _variant(records: Sequence[Record]) -> VariantReport:
    facts = variant_report(records[0]["variant"])
    checks = tuple(check_report(record["check"], facts.label) for record in records)
    charts = ChartSamples()
    for record in records:
        charts = charts.with_parts_of(from_json(ChartSamples, record.get("charts", {})))
    return dataclasses.replace(facts, checks=with_consequences(checks), charts=charts)


def _one_per_check(records: Sequence[Record]) -> list[Record]:
    """One record for each check of a variant, even if several tests ran it: the worst outcome, and all findings.

    Of an item that ran again (its `order` is the same) the last run counts.
    """
    last_runs = {(record["model"], _label(record), record["check"]["check"], record["order"]): record
                 for record in records}  # fmt: skip
    merged: dict[tuple[str, str, str], Record] = {}
    for (model, label, check, _), record in last_runs.items():
        before = merged.get((model, label, check))
        merged[model, label, check] = record if before is None else _merged(before, record)
    return list(merged.values())


def _merged(before: Record, after: Record) -> Record:
    """Two records of one check of a variant as one."""
    pair = (before["check"], after["check"])
    ranks = [_WORST_FIRST.index(check["outcome"]) for check in pair]
    worst, other = pair if ranks[0] < ranks[1] else pair[::-1]  # Of two equal outcomes the later.
    more = [finding for finding in other["findings"] if finding not in worst["findings"]]
    check = {
        **worst,
        "metrics": {**other["metrics"], **worst["metrics"]},
        "ignored": {**other["ignored"], **worst["ignored"]},
        "findings": [*worst["findings"], *more],
    }
    return {**after, "check": check, "charts": after.get("charts") or before.get("charts", {})}


def with_consequences(checks: Sequence[CheckReport]) -> tuple[CheckReport, ...]:
    """The checks of a variant; each error lists what follows from it in all of them, whichever ran first."""
    every = [finding for check in checks for finding in check.findings]
    return tuple(
        dataclasses.replace(check, findings=tuple(_joined(finding, every) for finding in check.findings))
        for check in checks
    )


def _joined(finding: ReportedFinding, every: Sequence[ReportedFinding]) -> ReportedFinding:
    known = {effect.id for effect in finding.consequences}
    more = tuple(other for other in every if other.follows == finding.id and other.id not in known)
    return dataclasses.replace(finding, consequences=(*finding.consequences, *more))


def variant_report(record: Record) -> VariantReport:
    """A variant without its checks, from its record."""
    return VariantReport(
        recipe=record["recipe"],
        mode=record["mode"],
        target=record.get("target", ""),
        worker=record.get("worker", ""),
        quantized=from_json(ModelFile, record["quantized"]),
        params=from_json(ParamsFile, record["params"]),
        coverage=record.get("coverage"),
        drift=record.get("bn_drift", 0.0),
        provenance=record.get("provenance", {}),
        layers=tuple(from_json(LayerReport, layer) for layer in record["layers"]),
    )


def check_report(record: Record, variant: str = "") -> CheckReport:
    """A check from its record; `variant` is the label of its variant."""
    name, metrics = record["check"], record["metrics"]
    kind = check_named(name).metrics_kind
    not_applicable = bool(metrics.get(NOT_APPLICABLE))
    return CheckReport(
        check=name,
        outcome=record["outcome"],
        findings=tuple(_finding(finding, name, variant) for finding in record["findings"]),
        metrics=kind.from_json(metrics) if kind and metrics and not not_applicable else None,
        reason=record["reason"] or "",
        ignored=record["ignored"],
        not_applicable=not_applicable,
    )


def _finding(record: Record, check: str, variant: str) -> ReportedFinding:
    follows = record.get(FOLLOWS_ID)
    return ReportedFinding(
        id=FindingId(record["code"], check, record["layer"] or ""),
        severity=Severity(record["severity"]),
        message=record["message"],
        cause=record["cause"] or "",
        fix=record["remedy"] or "",
        variant=variant,
        follows=FindingId(*follows) if follows else None,
        consequences=tuple(_finding(effect, effect["check"], variant) for effect in record["consequences"]),
    )
