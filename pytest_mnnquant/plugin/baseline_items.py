"""The baseline item of a variant: gathers its metrics from the checks and compares them with the accepted ones."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_mnnquant.baseline.compare import check_baseline
from pytest_mnnquant.baseline.entry import Entry, rounded
from pytest_mnnquant.baseline.file import BadBaseline
from pytest_mnnquant.baseline.fixes import Intent, update_fix
from pytest_mnnquant.baseline.judges import Evidence
from pytest_mnnquant.cache.store import versions
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.source import SourceUnderTest, as_finding
from pytest_mnnquant.evidence.steps import UNUSABLE, Unusable, step
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.baseline_metrics import BaselineMetrics, Measured
from pytest_mnnquant.findings.catalogue import BASELINE, CHECK_NAMES
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import FAILED, PASSED, Finding, Result, without_ignored
from pytest_mnnquant.findings.metric import METRICS
from pytest_mnnquant.findings.root_cause import with_root_causes
from pytest_mnnquant.mnnfile.fingerprint import fingerprint
from pytest_mnnquant.plugin.baseline_entries import accept_command, commands_of, unreadable_finding
from pytest_mnnquant.plugin.baseline_timing import time_against_accepted
from pytest_mnnquant.plugin.benchmark import run_undisturbed
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.report.figures import figures_of
from pytest_mnnquant.report.model import ModelReport
from pytest_mnnquant.report.record import reported
from pytest_mnnquant.runtime.host import host_facts


@dataclass(frozen=True)
class Measurement:
    """A variant's metrics, and the record that an update needs to accept them. `failed` are the failed checks."""

    figures: Figures
    record: BaselineMetrics
    failed: tuple[str, ...]
    unmeasured: Mapping[str, str]


def judge_variant(
    config: pytest.Config, case: VariantUnderTest, node_id: str, selected: Collection[str] = ()
) -> Result:
    """Compare a variant with its accepted metrics; during an update of the baseline, measure only.

    `selected` are the checks of the variant that run in the same session: a finding that follows from one of their
    findings is reported as a consequence.
    """
    session = session_of(config)
    baseline, updates = session.baseline, session.settings.updates_baseline
    if isinstance(baseline, BadBaseline):
        return Result.from_findings(BASELINE, [unreadable_finding(baseline)])
    try:
        with step("measure for the baseline"):
            measured = _measure(config, case, CHECK_NAMES if updates else [metric.check for metric in METRICS])
    except (Unusable, *UNUSABLE) as error:
        if updates:  # The conversion check alone reports it.
            return not_accepted(("conversion",), BaselineMetrics())
        return Result.from_findings(BASELINE, [error.finding if isinstance(error, Unusable) else as_finding(error)])
    if updates:
        failed, record = measured.failed, measured.record
        return not_accepted(failed, record) if failed else Result(BASELINE, PASSED, metrics=record)
    entry = baseline.entry(measured.figures.model, measured.figures.variant)
    if entry is None:
        return no_entry(config, measured, node_id)
    result = without_ignored(_compare(config, case, measured, entry, node_id), case.source.settings.ignore)
    checks = [name for name in CHECK_NAMES if name in selected]
    results = case.results.of_checks(checks, case.source.settings.limits, session.settings.strict)
    return with_root_causes(BASELINE, {**results, BASELINE: result})


def _measure(config: pytest.Config, case: VariantUnderTest, checks: Iterable[str]) -> Measurement:
    """The metrics that these checks measure. Raises `Unusable` or one of `UNUSABLE` if the variant can't be built."""
    case.variant  # noqa: B018  Raises if the variant can't be built.
    source_settings, run_settings = case.source.settings, session_of(config).settings
    limits = source_settings.limits
    results = {name: run_undisturbed(config, case, name, limits, run_settings.strict) for name in checks}
    figures = _figures(case, results, run_settings.baseline)
    failed = tuple(name for name, result in results.items() if result.outcome == FAILED)
    unmeasured = reasons_of(results)
    return Measurement(figures, record_of(source_settings, figures, failed, unmeasured), failed, unmeasured)


def reasons_of(results: Mapping[str, Result]) -> dict[str, str]:
    """Why metrics were not measured, by their keys."""
    reasons = {metric.key: results[metric.check].reason for metric in METRICS}
    return {key: reason for key, reason in reasons.items() if reason}


def _figures(case: VariantUnderTest, results: Mapping[str, Result], baseline: Path | None) -> Figures:
    source = case.source
    variant = dataclasses.replace(case.report, checks=tuple(reported(result) for result in results.values()))
    model = ModelReport(source.settings.name, _source_text(source, baseline))
    sha256, float_sha256 = fingerprint(case.model), fingerprint(source.prepared.model)
    return rounded(dataclasses.replace(figures_of(model, variant), sha256=sha256, float_sha256=float_sha256))


def _source_text(source: SourceUnderTest, baseline: Path | None) -> str:
    """The source as the baseline names it, with a path relative to the file's folder."""
    spec = source.spec
    if spec.path is None or baseline is None:
        return f"{spec.module}:{spec.attribute}"
    place = place_of(spec.path, baseline)
    return f"{place}:{spec.attribute}" if spec.attribute else place


def place_of(path: Path, baseline: Path) -> str:
    """A path relative to the folder of the baseline file."""
    return Path(os.path.relpath(path.resolve(), baseline.resolve().parent)).as_posix()


def record_of(
    settings: ModelSettings, figures: Figures, failed: tuple[str, ...], unmeasured: Mapping[str, str]
) -> BaselineMetrics:
    """The record that an update needs of a variant."""
    facts, conditions = host_facts(), dataclasses.asdict(settings.timing.conditions)
    host = {"machine": facts.machine, "processor": facts.processor}
    return BaselineMetrics(
        measured=Measured(**{field.name: getattr(figures, field.name) for field in dataclasses.fields(Measured)}),
        failed=failed,
        versions={name: version for name, version in versions().items() if version},
        host=host | {key: str(value) for key, value in conditions.items()},
        unmeasured=unmeasured,
    )


def not_accepted(failed: tuple[str, ...], record: BaselineMetrics) -> Result:
    """The result of a variant that an update does not accept."""
    result = Result.skipped(BASELINE, f"not accepted: {', '.join(failed)} failed")
    return dataclasses.replace(result, metrics=dataclasses.replace(record, failed=failed))


def no_entry(config: pytest.Config, measured: Measurement, node_id: str) -> Result:
    """The result of a variant that the baseline does not have."""
    session, figures = session_of(config), measured.figures
    problem = f"{session.settings.baseline} has no metrics of {figures.model} {figures.variant}"
    fix = update_fix(Intent.NEW_VARIANT, accept_command(session, node_id))
    return Result.from_findings(BASELINE, [Finding("MNQ911", problem, fix=fix)], measured.record)


def _compare(
    config: pytest.Config, case: VariantUnderTest, measured: Measurement, entry: Entry, node_id: str
) -> Result:
    """The comparison with the entry; its metrics include the record that an update needs."""
    record, commands = measured.record, commands_of(session_of(config), node_id)
    timing = time_against_accepted(config, case, entry, measured.figures, commands)
    evidence = Evidence(
        measured.figures,
        record.versions or {},
        record.host or {},
        measured.unmeasured,
        timing.ratio,
        timing.problem,
        timing.is_same_model,
    )
    result = check_baseline(evidence, entry, commands)
    return with_record(result, record)


def with_record(result: Result, record: BaselineMetrics) -> Result:
    """The result of a comparison, with what an update needs of the variant."""
    compared = metrics_of(BaselineMetrics, [result]) or BaselineMetrics()
    metrics = dataclasses.replace(
        compared,
        measured=record.measured,
        failed=record.failed,
        versions=record.versions,
        host=record.host,
        unmeasured=record.unmeasured,
    )
    return dataclasses.replace(result, metrics=metrics)
