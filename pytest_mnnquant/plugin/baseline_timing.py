"""Times a variant against its accepted model, if that is kept next to the baseline file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_mnnquant.baseline.entry import Entry
from pytest_mnnquant.baseline.fixes import Commands, Intent, update_fix
from pytest_mnnquant.baseline.models import BadArtifact, folder_of, kept_model
from pytest_mnnquant.evidence.source import as_finding
from pytest_mnnquant.evidence.steps import UNUSABLE
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.plugin.benchmark import why_not_timed
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.runtime.inference import input_names
from pytest_mnnquant.runtime.timing import paired_times
from pytest_mnnquant.statistics.paired_ratio import PairedRatio, paired_ratio


@dataclass(frozen=True)
class AcceptedTiming:
    """The time of a variant / the time of its accepted model; `problem` says why it was not measured.

    Both are None if nothing has to be timed: no model is kept, or the variant is the kept model (`is_same_model`).
    """

    ratio: PairedRatio | None = None
    problem: Finding | None = None
    is_same_model: bool = False


class _NotTimed(Exception):
    """The variant could not be timed; `finding` says why."""

    def __init__(self, problem: str, fix: str = "", code: str = "MNQ003") -> None:
        super().__init__(problem)
        self.finding = Finding(code, problem, fix=fix)


def time_against_accepted(
    config: pytest.Config, case: VariantUnderTest, entry: Entry, figures: Figures, commands: Commands
) -> AcceptedTiming:
    """Time a variant against the accepted model of its entry. `commands` are for the fixes."""
    path, limit = session_of(config).settings.baseline, entry.tolerances.ratio_paired
    folder = folder_of(path) if path is not None else None
    if folder is None or limit is None:
        return AcceptedTiming()
    try:
        accepted = _accepted_model(folder, entry, commands.accept)
        if entry.figures.sha256 == figures.sha256:
            return AcceptedTiming(is_same_model=True)
        if disturbance := why_not_timed(config):
            problem = f"ratio: not timed against the accepted model: {disturbance}"
            raise _NotTimed(problem, f"run it alone: {commands.rerun}")
        return AcceptedTiming(ratio=_time(case, accepted, 1 + limit, commands.accept))
    except _NotTimed as error:
        return AcceptedTiming(problem=error.finding)


def _accepted_model(folder: Path, entry: Entry, command: str) -> Model:
    accepted = entry.figures
    try:
        model = kept_model(folder, accepted.model, accepted.variant, accepted.sha256)
    except BadArtifact as error:
        raise _NotTimed(str(error), error.fix, "MNQ910") from None
    if model is None:
        raise _NotTimed(
            f"ratio: the accepted model is not kept in {folder} yet", update_fix(Intent.MODEL_NOT_KEPT, command)
        )
    return model


def _time(case: VariantUnderTest, accepted: Model, limit: float, command: str) -> PairedRatio:
    """Time until the ratio is known to be above or below `limit`."""
    case.say("timing against the accepted model")
    settings, reference = case.source.settings, case.source.prepared.model
    if len(accepted.inputs) != len(reference.inputs):
        problem = "ratio: the accepted model has other inputs than this model"
        raise _NotTimed(problem, update_fix(Intent.CHANGED, command))
    names = input_names(reference, accepted)
    inputs = {name_in_accepted: case.source.inputs[name] for name, name_in_accepted in names.items()}
    how = dataclasses.replace(settings.timing, limit=limit)
    try:
        times = paired_times(accepted, case.model, inputs, how, case.source.prepared.options(settings.timeout))
        return paired_ratio(times.reference, times.candidate)
    except UNUSABLE as error:
        raise _NotTimed(f"ratio: timing against the accepted model failed: {as_finding(error).message}") from None
    except ValueError as error:  # The time limit allowed too few pairs.
        raise _NotTimed(f"ratio: {error}", "raise --mnn-latency-time, or use a quieter machine") from None
