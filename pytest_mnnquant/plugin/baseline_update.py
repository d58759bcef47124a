"""The end of a run with `--mnn-update-baseline`: what ran is accepted, and it is told what that changed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_mnnquant.baseline import models
from pytest_mnnquant.baseline.entry import Entry, usual_tolerances
from pytest_mnnquant.baseline.file import BadBaseline, Baseline
from pytest_mnnquant.baseline.update import Changes, updated
from pytest_mnnquant.baseline.write import update_file
from pytest_mnnquant.cache.store import versions
from pytest_mnnquant.findings.check_names import BASELINE
from pytest_mnnquant.findings.figures import label_of
from pytest_mnnquant.mnnfile.fingerprint import fingerprint
from pytest_mnnquant.mnnfile.model import BadModel, read_model
from pytest_mnnquant.plugin.baseline_items import chooses_variants, stale
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.report.figures import figures_of
from pytest_mnnquant.report.json_report import build_report

# Options that leave out items of the suite, by pytest's names of their values.
_NARROWING: Final = ("keyword", "markexpr", "mnn_ids", "lf", "deselect", "stepwise")


@dataclasses.dataclass(frozen=True)
class Told:
    """What an update has to say; `problems` are why the file, or a model beside it, could not be written."""

    lines: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    is_refused: bool = False


def update(session: pytest.Session, records: Sequence[Mapping[str, Any]]) -> Told:
    """Accept what ran and passed, and remove what is gone, if the whole suite ran."""
    config = session.config
    state = session_of(config)
    path = state.settings.baseline
    if not state.settings.updates_baseline or path is None or config.option.collectonly:
        return Told()
    if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return Told((f"baseline: {path.name} is as it was: the run did not end",))
    report = build_report(records, versions())
    ran = tuple(entries_of(report))
    if not ran:
        return Told((f"baseline: {path.name} is as it was: no {BASELINE} check ran that could be accepted",))
    is_whole = not (session.shouldstop or session.shouldfail or is_narrowed(config))
    # What the check of the file calls stale, and nothing else: another command may ask for other variants.
    found = stale(state, chooses_variants(config)) if is_whole else ()
    here = {(one.figures.model, one.figures.variant) for one in ran}  # What ran is not gone: its source was renamed.
    gone = {(model, variant): text for model, variant, text in found if (model, variant) not in here}

    def change(before: Baseline) -> tuple[Baseline, tuple[Changes, tuple[str, ...]]]:
        after, changes = updated(before, ran, gone)
        folder = models.folder_of(path)
        return after, (changes, () if folder is None else tuple(_keep_models(folder, ran, after, changes)))

    try:
        changes, unkept = update_file(path, change)
    except (BadBaseline, OSError) as error:
        what = f"{path} can't be written: {_told(error)}" if isinstance(error, OSError) else str(error)
        return Told(problems=(f"--mnn-update-baseline: {what}",))
    return Told((*_unmeasured(report), *changes.lines), unkept, is_refused=bool(changes.refused))


def _told(error: OSError | BadModel) -> str:
    """What the system says of a file, and of which one: where a file is moved to another place, of that."""
    if not isinstance(error, OSError):
        return str(error)
    file = error.filename2 or error.filename
    return f"{file}: {error.strerror}" if file else str(error.strerror)


def is_narrowed(config: pytest.Config) -> bool:
    """Whether the command line leaves out items of the suite."""
    return any(getattr(config.option, name, None) for name in _NARROWING)


def entries_of(report: Mapping[str, Any]) -> Iterator[Entry]:
    """What is to be accepted: the variants whose baseline check ran, with the checks of theirs that failed."""
    for model in report["models"]:
        for variant in model["variants"]:
            if variant.get("target"):  # What is accepted are figures of this machine.
                continue
            base = figures_of(model, variant)
            (own,) = [check for check in variant["checks"] if check["check"] == BASELINE] or [None]
            if own is None:
                if base.failed:  # It was blocked, or not chosen: a failure is told all the same.
                    yield Entry(base)
                continue
            metrics = own["metrics"]
            failed = [name for name in (*base.failed, *metrics.get("failed", ())) if name != BASELINE]
            if "measured" not in metrics:  # There was no model to measure.
                failed = failed or [BASELINE]
            figures = dataclasses.replace(base, **metrics.get("measured", {}), failed=tuple(dict.fromkeys(failed)))
            yield Entry(figures, usual_tolerances(figures), metrics.get("versions", {}), metrics.get("host", {}))


def _unmeasured(report: Mapping[str, Any]) -> Iterator[str]:
    """Which figures were not there to be accepted, and why."""
    for model in report["models"]:
        for variant in model["variants"]:
            for check in variant["checks"]:
                reasons = check["metrics"].get("unmeasured", {}) if check["check"] == BASELINE else {}
                for figure, why in reasons.items():
                    yield f"baseline: {model['name']} {label_of(variant)}: {figure} is not accepted anew: {why}"


def _keep_models(folder: Path, ran: Sequence[Entry], after: Baseline, changes: Changes) -> Iterator[str]:
    """Bring the kept models in line with the entries; a line for each that can't be, which keeps back no other."""
    for one in ran:
        ours = one.figures
        entry = after.entry(ours.model, ours.variant)
        if not ours.failed and entry is not None and entry.figures.sha256 == ours.sha256 and ours.path:
            keep = functools.partial(_keep, folder, ours.model, ours.variant, Path(ours.path), ours.sha256)
            yield from _tried(keep, f"{ours.model} {ours.variant} can't be kept")
    for model, variant in changes.removed:
        drop = functools.partial(models.drop, folder, model, variant)
        yield from _tried(drop, f"{model} {variant} can't be removed")


def _tried(change: Callable[[], None], what: str) -> Iterator[str]:
    """Make a change; a line where that is impossible."""
    try:
        change()
    except (OSError, BadModel) as error:
        yield f"--mnn-update-baseline: {what}: {_told(error)}"


def _keep(folder: Path, model: str, variant: str, path: Path, sha256: str) -> None:
    try:
        if models.kept_model(folder, model, variant, sha256) is not None:
            return
    except models.BadArtifact:  # What stands there is another one: it is replaced.
        pass
    if fingerprint(read_model(path)) == sha256:
        models.keep(folder, model, variant, path)
