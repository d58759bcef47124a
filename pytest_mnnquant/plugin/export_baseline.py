"""The baseline item of an export of a language model: its metrics against the accepted ones."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pytest

from pytest_mnnquant.baseline.compare import check_baseline
from pytest_mnnquant.baseline.entry import KL, rounded
from pytest_mnnquant.baseline.file import BadBaseline
from pytest_mnnquant.baseline.judges import Evidence
from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.evidence.export import ALL_EXPORT_CHECKS, ExportUnderTest
from pytest_mnnquant.findings.catalogue import BASELINE
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import FAILED, PASSED, Result, without_ignored
from pytest_mnnquant.findings.metric import METRICS
from pytest_mnnquant.findings.root_cause import with_root_causes
from pytest_mnnquant.plugin.baseline_entries import commands_of, unreadable_finding
from pytest_mnnquant.plugin.baseline_items import (
    Measurement,
    no_entry,
    not_accepted,
    place_of,
    reasons_of,
    record_of,
    with_record,
)
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.report.figures import figures_of
from pytest_mnnquant.report.model import ModelReport
from pytest_mnnquant.report.record import reported


def judge_export(config: pytest.Config, case: ExportUnderTest, node_id: str, selected: Collection[str]) -> Result:
    """Compare an export with its accepted metrics; during an update of the baseline, measure only.

    `selected` are the checks of the export that run in the same session.
    """
    session = session_of(config)
    baseline, updates = session.baseline, session.settings.updates_baseline
    if isinstance(baseline, BadBaseline):
        return Result.from_findings(BASELINE, [unreadable_finding(baseline)])
    measured = _measure(case, ALL_EXPORT_CHECKS if updates else [metric.check for metric in METRICS], config)
    if updates:
        failed, record = measured.failed, measured.record
        return not_accepted(failed, record) if failed else Result(BASELINE, PASSED, metrics=record)
    entry = baseline.entry(measured.figures.model, measured.figures.variant)
    if entry is None:
        return no_entry(config, measured, node_id)
    record = measured.record
    evidence = Evidence(measured.figures, record.versions or {}, record.host or {}, measured.unmeasured)
    result = with_record(check_baseline(evidence, entry, commands_of(session, node_id)), record)
    results = {name: case.run_check(name) for name in ALL_EXPORT_CHECKS if name in selected}
    return with_root_causes(BASELINE, {**results, BASELINE: without_ignored(result, case.settings.ignore)})


def _measure(case: ExportUnderTest, checks: Iterable[str], config: pytest.Config) -> Measurement:
    results = {name: case.run_check(name) for name in checks}
    figures = _figures(case, results, session_of(config).settings.baseline)
    failed = tuple(name for name, result in results.items() if result.outcome == FAILED)
    unmeasured = reasons_of(results)
    return Measurement(figures, record_of(case.settings, figures, failed, unmeasured), failed, unmeasured)


def _figures(case: ExportUnderTest, results: Mapping[str, Result], baseline: Path | None) -> Figures:
    variant = dataclasses.replace(case.report, checks=tuple(reported(result) for result in results.values()))
    source = case.settings.source if baseline is None else place_of(case.checkpoint, baseline)
    figures = figures_of(ModelReport(case.settings.name, source), variant)
    # The metric decides the tolerances, also without a text.
    return rounded(dataclasses.replace(figures, sha256=_digest(case), metric=KL, lower_is_better=True))


def _digest(case: ExportUnderTest) -> str:
    """SHA-256 of the names and contents of all files; empty if the export can't be read."""
    files = [(name, path) for name, path in case.files if path.is_file()]
    digests = [f"{name} {file_digest(path)}" for name, path in files]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() if digests else ""
