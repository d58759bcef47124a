"""The baseline item of a variant: gathers its figures from the checks and has them compared with the accepted ones."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from pytest_mnnquant.baseline.compare import check_baseline
from pytest_mnnquant.baseline.entry import Entry, rounded
from pytest_mnnquant.baseline.file import BadBaseline
from pytest_mnnquant.baseline.fixes import Intent, update_fix
from pytest_mnnquant.baseline.judges import Evidence
from pytest_mnnquant.baseline.models import BadArtifact, folder_of, kept_model
from pytest_mnnquant.cache.store import versions
from pytest_mnnquant.evidence.source import UNUSABLE, SourceUnderTest, Unusable, why
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.catalogue import BASELINE, CHECK_NAMES, ENTRIES
from pytest_mnnquant.findings.check_metrics import BaselineMetrics, Measured, metrics_of
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import FAILED, PASSED, Finding, Result, without_ignored
from pytest_mnnquant.findings.metric import METRICS
from pytest_mnnquant.findings.root_cause import with_root_causes
from pytest_mnnquant.mnnfile.fingerprint import fingerprint
from pytest_mnnquant.plugin.benchmark import run_undisturbed, why_not_timed
from pytest_mnnquant.plugin.node_ids import labels
from pytest_mnnquant.plugin.session import PluginSession, session_of
from pytest_mnnquant.report.figures import figures_of
from pytest_mnnquant.report.model import ModelReport
from pytest_mnnquant.report.record import reported
from pytest_mnnquant.runtime.host import host_facts
from pytest_mnnquant.runtime.inference import input_names
from pytest_mnnquant.runtime.timing import paired_times
from pytest_mnnquant.sources.presence import reason_missing
from pytest_mnnquant.sources.spec import MODEL_SUFFIXES
from pytest_mnnquant.statistics.paired_ratio import PairedRatio, paired_ratio


def judged(config: pytest.Config, case: VariantUnderTest, node_id: str, selected: Collection[str] = ()) -> Result:
    """Compare a variant with what was accepted; while the baseline is updated, measure only.

    `selected` are the checks of the variant that run in the same session: what follows from theirs is reported so.
    """
    state = session_of(config)
    updates = state.settings.updates_baseline
    if isinstance(state.baseline, BadBaseline):
        return Result.from_findings(BASELINE, [unusable(state.baseline)])
    try:
        case.variant  # noqa: B018  Without one there is nothing to compare.
        names = CHECK_NAMES if updates else tuple(metric.check for metric in METRICS)
        limits, strict = case.gate.settings.limits, state.settings.strict
        results = {name: run_undisturbed(config, case, name, limits, strict) for name in names}
        figures = _figures(case, results, state)
    except (Unusable, *UNUSABLE) as error:
        finding = error.finding if isinstance(error, Unusable) else why(error)
        # In an update the conversion check alone tells it.
        return _refused(("conversion",), BaselineMetrics()) if updates else Result.from_findings(BASELINE, [finding])
    failed = tuple(name for name, result in results.items() if result.outcome == FAILED)
    reasons = ((metric.key, results[metric.check].reason) for metric in METRICS)
    unmeasured = {key: reason for key, reason in reasons if reason}
    record = dataclasses.replace(measured(case, figures, failed), unmeasured=unmeasured)
    if updates:
        return _refused(failed, record) if failed else Result(BASELINE, PASSED, metrics=record)
    entry = state.baseline.entry(figures.model, figures.variant)
    command = accepting(config, node_id)
    if entry is None:
        told = f"{state.settings.baseline} has no figures of {figures.model} {figures.variant}"
        return Result.from_findings(
            BASELINE, [Finding("MNQ911", told, fix=update_fix(Intent.NEW_VARIANT, command))], record
        )
    paired, unpaired = _paired(config, case, entry, state, figures, command)
    is_kept = paired is None and unpaired is None and _is_kept(entry, state, figures)
    evidence = Evidence(figures, record.versions or {}, record.host or {}, unmeasured, paired, unpaired, is_kept)
    result = check_baseline(evidence, entry, command)
    result = dataclasses.replace(result, metrics=_with_record(metrics_of(BaselineMetrics, [result]), record))
    result = without_ignored(result, case.gate.settings.ignore)
    checks = [name for name in CHECK_NAMES if name in selected]
    results = case.results.of_checks(checks, case.gate.settings.limits, state.settings.strict)
    return with_root_causes(BASELINE, {**results, BASELINE: result})


def _refused(failed: tuple[str, ...], record: BaselineMetrics) -> Result:
    """What an update does not accept."""
    reason = f"not accepted: {', '.join(failed)} failed"
    return dataclasses.replace(
        Result.skipped(BASELINE, reason), metrics=dataclasses.replace(record, failed=tuple(failed))
    )


def _with_record(compared: BaselineMetrics | None, record: BaselineMetrics) -> BaselineMetrics:
    """The comparison, with the record of what an update would accept."""
    return dataclasses.replace(
        compared or BaselineMetrics(),
        measured=record.measured,
        failed=record.failed,
        versions=record.versions,
        host=record.host,
        unmeasured=record.unmeasured,
    )


def measured(case: VariantUnderTest, figures: Figures, failed: tuple[str, ...]) -> BaselineMetrics:
    """What an update accepts."""
    facts, timing = host_facts(), dataclasses.asdict(case.gate.settings.timing.conditions)
    host = {
        "machine": facts.machine,
        "processor": facts.processor,
        **{key: str(value) for key, value in timing.items()},
    }
    return BaselineMetrics(
        measured=Measured(**{field.name: getattr(figures, field.name) for field in dataclasses.fields(Measured)}),
        failed=failed,
        versions={name: version for name, version in versions().items() if version},
        host=host,
    )


def unusable(error: BadBaseline) -> Finding:
    """A baseline that can't be read as a finding."""
    return Finding("MNQ910", str(error), fix=error.fix)


def accepting(config: pytest.Config, node_id: str = "") -> str:
    """The command that accepts what an item measures (of all items, where none is named)."""
    arguments = [*session_of(config).arguments, *([node_id] if node_id else [])]
    return shlex.join(["pytest", *arguments, "--mnn-update-baseline"])


def stale(session: PluginSession) -> Iterator[tuple[str, str, str]]:
    """Entries whose model is gone: model, variant, why."""
    path = session.settings.baseline
    if path is None or isinstance(session.baseline, BadBaseline):
        return
    configured = {source.settings.name: set(labels(source)) for source in session.sources}
    for model, variant, entry in session.baseline.entries:
        reason = _reason_source_missing(entry.figures.source, path.parent)
        if not reason and session.settings.is_whole_configuration:
            if model not in configured:
                reason = "no model of this name is in the configuration"
            elif variant not in configured[model] and not session.settings.chooses_variants:
                reason = "the configuration asks for no such variant"
        if reason:
            yield model, variant, reason


def _reason_source_missing(source: str, folder: Path) -> str:
    """Why the source of an entry is not there; empty if it is."""
    file = _file_of(source)
    if file and not (folder / file).exists():
        return f"its source {file} is not there"
    return reason_missing(source, folder)


def check_entries(config: pytest.Config) -> Result:
    """Judge the file itself: that it can be read, and that all in it is still there."""
    state = session_of(config)
    if isinstance(state.baseline, BadBaseline):
        return Result.from_findings(ENTRIES, [unusable(state.baseline)])
    fix = update_fix(Intent.GONE, accepting(config))
    gone = [] if state.settings.updates_baseline else [*stale(state)]
    found = [Finding("MNQ912", f"{model} {label}: {text}", fix=fix) for model, label, text in gone]
    return without_ignored(Result.from_findings(ENTRIES, found), state.settings.defaults.ignore)


def _figures(case: VariantUnderTest, results: Mapping[str, Result], state: PluginSession) -> Figures:
    gate = case.gate
    checks = tuple(reported(result) for result in results.values())
    variant = dataclasses.replace(case.report, checks=checks)
    model = ModelReport(gate.settings.name, _source(gate, state))
    sha256, float_sha256 = fingerprint(case.model), fingerprint(gate.prepared.model)
    return rounded(dataclasses.replace(figures_of(model, variant), sha256=sha256, float_sha256=float_sha256))


def _source(gate: SourceUnderTest, state: PluginSession) -> str:
    """The source as the baseline names it: its path starts at the file's folder."""
    spec, path = gate.spec, state.settings.baseline
    if spec.path is None or path is None:
        return f"{spec.module}:{spec.attribute}"
    place = Path(os.path.relpath(spec.path.resolve(), path.resolve().parent)).as_posix()
    return f"{place}:{spec.attribute}" if spec.attribute else place


def _file_of(source: str) -> str:
    """The file that a source names; empty for a module's name."""
    place = source.rpartition(":")[0] if ".py:" in source else source
    return place if place.endswith((".py", *MODEL_SUFFIXES)) else ""


def _is_kept(entry: Entry, state: PluginSession, figures: Figures) -> bool:
    """Whether the variant is the accepted model, which is kept beside the file to be timed against."""
    path, allowed = state.settings.baseline, entry.tolerances.ratio_paired
    kept = path is not None and folder_of(path) is not None and allowed is not None
    return kept and entry.figures.sha256 == figures.sha256


def _paired(
    config: pytest.Config, case: VariantUnderTest, entry: Entry, state: PluginSession, figures: Figures, command: str
) -> tuple[PairedRatio | None, Finding | None]:
    """The variant's time over that of the accepted model, where that is kept; or why there is none."""
    path = state.settings.baseline
    folder = folder_of(path) if path is not None else None
    accepted = entry.figures
    if folder is None or entry.tolerances.ratio_paired is None:
        return None, None
    try:
        kept = kept_model(folder, accepted.model, accepted.variant, accepted.sha256)
    except BadArtifact as error:
        return None, Finding("MNQ910", str(error), fix=error.fix)
    if kept is None:
        told = f"ratio: the accepted model is not kept in {folder} yet"
        return None, Finding("MNQ003", told, fix=update_fix(Intent.MODEL_NOT_KEPT, command))
    if accepted.sha256 == figures.sha256:
        return None, None  # One and the same model: there is nothing to time.
    if disturbed := why_not_timed(config):
        told = f"ratio: not timed beside the accepted model: {disturbed}"
        return None, Finding("MNQ003", told, fix="run it alone: -k baseline -p no:xdist")
    settings = case.gate.settings
    how = dataclasses.replace(settings.timing, limit=1 + entry.tolerances.ratio_paired)
    case.say("timing against the accepted model")
    ours = case.gate.prepared.model
    if len(kept.inputs) != len(ours.inputs):
        told = "ratio: the accepted model takes other inputs than this one"
        return None, Finding("MNQ003", told, fix=update_fix(Intent.CHANGED, command))
    inputs = {theirs: case.gate.inputs[name] for name, theirs in input_names(ours, kept).items()}
    try:
        times = paired_times(kept, case.model, inputs, timeout=settings.timeout, settings=how)
        return paired_ratio(times.reference, times.candidate), None
    except UNUSABLE as error:
        return None, Finding("MNQ003", f"ratio: it could not be timed beside the accepted model: {why(error).message}")
    except ValueError as error:  # Too few pairs fitted into the time.
        return None, Finding("MNQ003", f"ratio: {error}", fix="raise --mnn-latency-time, or use a quieter machine")
