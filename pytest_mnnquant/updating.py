"""The end of a run with `--mnn-update-baseline`: what ran is accepted, and it is told what that changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_mnnquant.accepting import chooses_variants, stale
from pytest_mnnquant.checks import BASELINE
from pytest_mnnquant.checks.accepted import Entry, usual_tolerances
from pytest_mnnquant.history import artifacts
from pytest_mnnquant.history.baseline import BadBaseline, Baseline
from pytest_mnnquant.history.figures import figures_of
from pytest_mnnquant.history.keeping import update_file
from pytest_mnnquant.history.update import Changes, updated
from pytest_mnnquant.mnnfile.fingerprint import fingerprint
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.quantize.store import versions
from pytest_mnnquant.report.json_report import build_report
from pytest_mnnquant.session import bench_of

# Options that leave out items of the suite, by pytest's names of their values.
_NARROWING: Final = ("keyword", "markexpr", "mnn_ids", "lf", "deselect", "stepwise")


@dataclasses.dataclass(frozen=True)
class Told:
    """What an update has to say; `problem` is why nothing was written."""

    lines: tuple[str, ...] = ()
    problem: str = ""
    is_refused: bool = False


def update(session: pytest.Session, records: Sequence[Mapping[str, Any]]) -> Told:
    """Accept what ran and passed, and remove what is gone, if the whole suite ran."""
    config = session.config
    state = bench_of(config)
    path = state.settings.baseline
    if not state.settings.updates_baseline or path is None or config.option.collectonly:
        return Told()
    if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return Told((f"baseline: {path.name} is as it was: the run did not end",))
    ran = tuple(entries_of(build_report(records, versions())))
    if not ran:
        return Told((f"baseline: {path.name} is as it was: no {BASELINE} check ran that could be accepted",))
    is_whole = not (session.shouldstop or session.shouldfail or is_narrowed(config))
    # What the check of the file calls stale, and nothing else: another command may ask for other variants.
    found = stale(state, chooses_variants(config)) if is_whole else ()
    gone = {(model, variant): text for model, variant, text in found}

    def change(before: Baseline) -> tuple[Baseline, Changes]:
        after, changes = updated(before, ran, gone)
        folder = artifacts.folder_of(path)
        if folder is not None:
            _keep_models(folder, ran, after, changes)
        return after, changes

    try:
        changes = update_file(path, change)
    except (BadBaseline, OSError) as error:
        what = f"{path} can't be written: {error.strerror}" if isinstance(error, OSError) else str(error)
        return Told(problem=f"--mnn-update-baseline: {what}")
    return Told(tuple(changes.lines), is_refused=bool(changes.refused))


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


def _keep_models(folder: Path, ran: Sequence[Entry], after: Baseline, changes: Changes) -> None:
    """Bring the kept models in line with the entries. Raises `OSError`."""
    for one in ran:
        ours = one.figures
        entry = after.entry(ours.model, ours.variant)
        if not ours.failed and entry is not None and entry.figures.sha256 == ours.sha256 and ours.path:
            _keep(folder, ours.model, ours.variant, Path(ours.path), ours.sha256)
    for model, variant in changes.removed:
        artifacts.drop(folder, model, variant)


def _keep(folder: Path, model: str, variant: str, path: Path, sha256: str) -> None:
    try:
        if artifacts.kept_model(folder, model, variant, sha256) is not None:
            return
    except artifacts.BadArtifact:  # What stands there is another one: it is replaced.
        pass
    if fingerprint(read_model(path)) == sha256:
        artifacts.keep(folder, model, variant, path)
