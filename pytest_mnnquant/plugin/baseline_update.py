"""The end of a run with `--mnn-update-baseline`: accepts the metrics of the run and reports the changes."""

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

# Options that deselect items of the suite, by pytest's names of their values.
_NARROWING: Final = ("keyword", "markexpr", "lf", "deselect", "stepwise")


@dataclasses.dataclass(frozen=True)
class UpdateOutcome:
    """The lines that report an update; `problems` say why the file or a kept model could not be written."""

    lines: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    is_refused: bool = False


def update(session: pytest.Session, report: Report) -> UpdateOutcome:
    """Accept the variants that ran and passed; if the whole suite ran, remove stale entries."""
    config = session.config
    state = session_of(config)
    path = state.settings.baseline
    if not state.settings.updates_baseline or path is None or config.option.collectonly:
        return UpdateOutcome()
    if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return UpdateOutcome((f"baseline: {path.name} was not updated: the run did not finish",))
    ran = tuple(entries_of(report))
    if not ran:
        return UpdateOutcome((f"baseline: {path.name} was not updated: no {BASELINE} check ran on this host",))
    is_whole = not (session.shouldstop or session.shouldfail or is_narrowed(config))
    # Only entries that the check of the file calls stale: another command may request other variants.
    stale = stale_entries(state) if is_whole else ()
    present = {
        (entry.figures.model, entry.figures.variant) for entry in ran
    }  # These still exist: their source was renamed.
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
    """The file and the system's message; of a file that is moved, its new path."""
    if not isinstance(error, OSError):
        return str(error)
    file = error.filename2 or error.filename
    return f"{file}: {error.strerror}" if file else str(error.strerror)


def is_narrowed(config: pytest.Config) -> bool:
    """Whether the command line deselects items of the suite."""
    chooses_items = any(getattr(config.option, name, None) for name in _NARROWING)
    return chooses_items or bool(session_of(config).requested_ids)


def entries_of(report: Report) -> Iterator[Entry]:
    """The entries to accept: those of variants whose baseline check ran, with their failed checks.

    A baseline holds metrics of this host, so variants on targets are left out.
    """
    for model in report.models:
        for variant in model.variants:
            entry = None if variant.target else _entry(figures_of(model, variant), variant)
            if entry is not None:
                yield entry


def _entry(base: Figures, variant: VariantReport) -> Entry | None:
    """The entry of one variant; None if no metrics are known."""
    if variant.check(BASELINE) is None:  # It was blocked or deselected; a failure is reported anyway.
        return Entry(base) if base.failed else None
    metrics = variant.metrics(BaselineMetrics) or BaselineMetrics()
    failed = [name for name in (*base.failed, *(metrics.failed or ())) if name != BASELINE]
    if metrics.measured is None:  # The variant could not be built.
        failed = failed or [BASELINE]
    measured = as_json(metrics.measured) if metrics.measured else {}
    figures = dataclasses.replace(base, **measured, failed=tuple(dict.fromkeys(failed)))
    return Entry(figures, usual_tolerances(figures), metrics.versions or {}, metrics.host or {})


def _unmeasured(report: Report) -> Iterator[str]:
    """The metrics that could not be accepted because they were not measured, each with the reason."""
    for model in report.models:
        for variant in model.variants:
            metrics = variant.metrics(BaselineMetrics) or BaselineMetrics()
            for figure, why in (metrics.unmeasured or {}).items():
                yield f"baseline: {model.name} {variant.label}: {figure} was not updated: {why}"


def _keep_models(folder: Path, ran: Sequence[Entry], after: Baseline, changes: Changes) -> Iterator[str]:
    """Update the kept models to match the entries. A line for each failure; the others are updated anyway."""
    for figures in (entry.figures for entry in ran):
        accepted = after.entry(figures.model, figures.variant)
        if not figures.failed and accepted is not None and accepted.figures.sha256 == figures.sha256 and figures.path:
            keep = functools.partial(_keep_model, folder, figures)
            yield from _tried(keep, f"{figures.model} {figures.variant} can't be kept")
    for model, variant in changes.removed:
        drop = functools.partial(models.drop, folder, model, variant)
        yield from _tried(drop, f"{model} {variant} can't be removed")


def _tried(change: Callable[[], None], problem: str) -> Iterator[str]:
    """Make a change; yields a line if it fails."""
    try:
        change()
    except (OSError, BadModel) as error:
        yield f"--mnn-update-baseline: {problem}: {_reason(error)}"


def _keep_model(folder: Path, figures: Figures) -> None:
    try:
        if models.kept_model(folder, figures.model, figures.variant, figures.sha256) is not None:
            return
    except models.BadArtifact:  # The kept model is a different one: replace it.
        pass
    path = Path(figures.path)
    if fingerprint(read_model(path)) == figures.sha256:
        models.keep(folder, figures.model, figures.variant, path)
