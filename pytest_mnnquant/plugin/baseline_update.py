"""The end of a run with `--mnn-update-baseline`: what ran is accepted, and the run says what that changed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from pytest_mnnquant.baseline import models
from pytest_mnnquant.baseline.entry import Entry, usual_tolerances
from pytest_mnnquant.baseline.file import BadBaseline, Baseline
from pytest_mnnquant.baseline.update import Changes, updated
from pytest_mnnquant.baseline.write import update_file
from pytest_mnnquant.findings.baseline_metrics import BaselineMetrics
from pytest_mnnquant.findings.catalogue import BASELINE
from pytest_mnnquant.findings.dataclass_json import as_json
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.mnnfile.fingerprint import fingerprint
from pytest_mnnquant.mnnfile.model import BadModel, read_model
from pytest_mnnquant.plugin.baseline_entries import stale_entries
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.report.figures import figures_of
from pytest_mnnquant.report.model import Report
from pytest_mnnquant.report.variant_report import VariantReport

# Options that leave out items of the suite, by pytest's names of their values.
_NARROWING: Final = ("keyword", "markexpr", "lf", "deselect", "stepwise")


@dataclasses.dataclass(frozen=True)
class UpdateOutcome:
    """What an update has to say; `problems` are why the file, or a model that is kept with it, could not be written."""

    lines: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    is_refused: bool = False


def update(session: pytest.Session, report: Report) -> UpdateOutcome:
    """Accept what ran and passed, and remove what is gone, if the whole suite ran."""
    config = session.config
    state = session_of(config)
    path = state.settings.baseline
    if not state.settings.updates_baseline or path is None or config.option.collectonly:
        return UpdateOutcome()
    if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return UpdateOutcome((f"baseline: {path.name} is as it was: the run did not end",))
    ran = tuple(entries_of(report))
    if not ran:
        return UpdateOutcome((f"baseline: {path.name} is as it was: no {BASELINE} check ran that could be accepted",))
    is_whole = not (session.shouldstop or session.shouldfail or is_narrowed(config))
    # What the check of the file calls stale, and nothing else: another command may ask for other variants.
    stale = stale_entries(state) if is_whole else ()
    present = {(entry.figures.model, entry.figures.variant) for entry in ran}  # Not gone: its source was renamed.
    gone = {(model, variant): reason for model, variant, reason in stale if (model, variant) not in present}

    def change(before: Baseline) -> tuple[Baseline, tuple[Changes, tuple[str, ...]]]:
        after, changes = updated(before, ran, gone)
        folder = models.folder_of(path)
        return after, (changes, () if folder is None else tuple(_keep_models(folder, ran, after, changes)))

    try:
        changes, unkept = update_file(path, change)
    except (BadBaseline, OSError) as error:
        problem = f"{path} can't be written: {_reason(error)}" if isinstance(error, OSError) else str(error)
        return UpdateOutcome(problems=(f"--mnn-update-baseline: {problem}",))
    return UpdateOutcome((*_unmeasured(report), *changes.lines), unkept, is_refused=bool(changes.refused))


def _reason(error: OSError | BadModel) -> str:
    """What the system says of a file, and of which; of a file that is moved, the new place."""
    if not isinstance(error, OSError):
        return str(error)
    file = error.filename2 or error.filename
    return f"{file}: {error.strerror}" if file else str(error.strerror)


def is_narrowed(config: pytest.Config) -> bool:
    """Whether the command line leaves out items of the suite."""
    chooses_items = any(getattr(config.option, name, None) for name in _NARROWING)
    return chooses_items or bool(session_of(config).requested_ids)


def entries_of(report: Report) -> Iterator[Entry]:
    """What is to be accepted: the variants whose baseline check ran, with those of their checks that failed.

    What is accepted are figures of this host: variants on targets are left out.
    """
    for model in report.models:
        for variant in model.variants:
            entry = None if variant.target else _entry(figures_of(model, variant), variant)
            if entry is not None:
                yield entry


def _entry(base: Figures, variant: VariantReport) -> Entry | None:
    """What is to be accepted of one variant; None if nothing is known of it."""
    if variant.check(BASELINE) is None:  # It was blocked, or not chosen: a failure is reported nevertheless.
        return Entry(base) if base.failed else None
    metrics = variant.metrics(BaselineMetrics) or BaselineMetrics()
    failed = [name for name in (*base.failed, *(metrics.failed or ())) if name != BASELINE]
    if metrics.measured is None:  # There was no model to measure.
        failed = failed or [BASELINE]
    measured = as_json(metrics.measured) if metrics.measured else {}
    figures = dataclasses.replace(base, **measured, failed=tuple(dict.fromkeys(failed)))
    return Entry(figures, usual_tolerances(figures), metrics.versions or {}, metrics.host or {})


def _unmeasured(report: Report) -> Iterator[str]:
    """Which figures could not be accepted, since they were not measured, and why."""
    for model in report.models:
        for variant in model.variants:
            metrics = variant.metrics(BaselineMetrics) or BaselineMetrics()
            for figure, why in (metrics.unmeasured or {}).items():
                yield f"baseline: {model.name} {variant.label}: {figure} is not accepted anew: {why}"


def _keep_models(folder: Path, ran: Sequence[Entry], after: Baseline, changes: Changes) -> Iterator[str]:
    """Bring the kept models in line with the entries; a line for each that can't be, which keeps back no other."""
    for figures in (entry.figures for entry in ran):
        accepted = after.entry(figures.model, figures.variant)
        if not figures.failed and accepted is not None and accepted.figures.sha256 == figures.sha256 and figures.path:
            keep = functools.partial(_keep_model, folder, figures)
            yield from _tried(keep, f"{figures.model} {figures.variant} can't be kept")
    for model, variant in changes.removed:
        drop = functools.partial(models.drop, folder, model, variant)
        yield from _tried(drop, f"{model} {variant} can't be removed")


def _tried(change: Callable[[], None], problem: str) -> Iterator[str]:
    """Make a change; a line if that is impossible."""
    try:
        change()
    except (OSError, BadModel) as error:
        yield f"--mnn-update-baseline: {problem}: {_reason(error)}"


def _keep_model(folder: Path, figures: Figures) -> None:
    try:
        if models.kept_model(folder, figures.model, figures.variant, figures.sha256) is not None:
            return
    except models.BadArtifact:  # What stands there is another one: it is replaced.
        pass
    path = Path(figures.path)
    if fingerprint(read_model(path)) == figures.sha256:
        models.keep(folder, figures.model, figures.variant, path)
