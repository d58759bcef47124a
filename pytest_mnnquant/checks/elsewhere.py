"""Elsewhere: whether a target computes what this machine does, and which operator makes the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.finding import Finding
from pytest_mnnquant.checks.outputs import Outputs
from pytest_mnnquant.mnnfile.model import Op
from pytest_mnnquant.runtime.operators import Operators, Values

#: A code that is rounded to the other side is one step off; what is further off is computed otherwise.
ROUNDING: Final = 1.05
#: Float numbers have no step of their own: they are counted in that which 8 bits would have over their range.
_CODES: Final = 255
# Below this share of a step, float numbers were only summed in another order.
_SAME: Final = 0.01
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class OpDifference:
    """By how much an operator's output differs where it is given the same: in steps, at most; of how many values."""

    name: str
    kind: str
    steps: float
    unlike: int
    values: int


@dataclass(frozen=True)
class ElsewhereEvidence:
    """Outputs as they were judged on this machine and as a target gives them, with the scales of those that are codes.

    `operators` were looked at one by one, but for the `uncompared`; None where that was not done, and `unlooked` says
    why.
    """

    target: str
    here: Outputs
    there: Outputs
    scales: Mapping[str, float]
    operators: Sequence[OpDifference] | None = None
    uncompared: Sequence[str] = ()
    unlooked: str = ""

    @property
    def steps(self) -> dict[str, float]:
        """By how many steps each output differs at most."""
        both = {name: self.there[name] for name in self.here if name in self.there}
        return {name: _steps(self.here[name], there, self.scales.get(name))[0] for name, there in both.items()}


def check_elsewhere(evidence: ElsewhereEvidence) -> tuple[list[Finding], dict[str, Any]]:
    """What is to be told of the difference to this machine, and its figures. It fails nothing: accuracy decides."""
    steps = evidence.steps
    furthest = max(steps, key=lambda name: steps[name], default="")
    figures: dict[str, Any] = {"steps": steps.get(furthest, 0.0), "outputs": steps}
    if evidence.operators is not None:
        figures["operators"] = [
            {"name": one.name, "op": one.kind, "steps": one.steps, "unlike": one.unlike, "values": one.values}
            for one in evidence.operators
            if one.unlike
        ]
        figures["compared"], figures["uncompared"] = len(evidence.operators), list(evidence.uncompared)
    metrics: dict[str, Any] = {"difference": figures}
    if figures["steps"] <= ROUNDING:
        return [], metrics
    told = f"output {furthest} differs by {steps[furthest]:.3g} steps from this machine's"
    culprits = sorted((one for one in evidence.operators or () if one.steps > ROUNDING), key=lambda one: -one.steps)
    if culprits:
        return [_guilty(culprits, evidence.target, told)], metrics
    if evidence.operators:
        return [], {**metrics, "note": _rounded(evidence, furthest, steps[furthest])}
    cause = f"which operator makes it is not known: {evidence.unlooked}" if evidence.unlooked else ""
    return [Finding("MNQ740", told, cause=cause, remedy=_REMEDY)], metrics


_REMEDY: Final = "what counts is what the device computes: the accuracy on this target"


def _guilty(culprits: Sequence[OpDifference], target: str, told: str) -> Finding:
    worst, others = culprits[0], culprits[1:]
    names = ", ".join(one.name for one in others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
    counted = f"{worst.unlike:,} of {worst.values:,} values"
    title = f"{worst.name} ({worst.kind})"
    message = f"given the same input, {title} on {target} is up to {worst.steps:.3g} steps from here ({counted}); "
    also = f"; so is {names}" if others else ""
    cause = "the two run different kernels; rounding makes one step at most"
    return Finding("MNQ740", message + told + also, worst.name, cause=cause, remedy=_REMEDY)


def _rounded(evidence: ElsewhereEvidence, output: str, steps: float) -> str:
    """Why outputs differ though no operator does: each rounds as it may, and the layers after it carry that on."""
    operators, missed = evidence.operators or (), len(evidence.uncompared)
    most = max(operators, key=lambda one: one.unlike / one.values)
    often = f", {most.name} for {most.unlike / most.values:.1%} of its values" if most.unlike else ""
    told = (
        f"output {output} is {steps:.3g} steps from this machine's by rounding: given the same input, {len(operators)}"
    )
    return f"{told} operators are a step off at most{often}" + (f"; {missed} could not be compared" if missed else "")


def differences(
    ops: Sequence[Op], here: Operators, there: Operators, scales: Mapping[str, float], int8: frozenset[str]
) -> list[OpDifference]:
    """Operators by what they make of the same values in both places.

    By themselves, where that is what they do in the network in both places; else in the network, on those samples for
    which both were given the same. `scales` are those of operators whose output is quantized, by their name; `int8` ran
    so, with a scale that is the one of another tensor.
    """
    found = []
    for op in ops:
        if op.name in here.faithful and op.name in there.faithful:
            ours, theirs = here.made[op.name], there.made[op.name]
        else:
            ours, theirs = _where_same(op, here.own, there.own)
        if not ours.size:
            continue
        scale = scales.get(op.name) or (_gap(here.own[op.outputs[0]]) if op.name in int8 else None)
        steps, off = _steps(ours, theirs, scale)
        unlike = int((off > _SAME).sum()) if off is not None else ours.size
        found.append(OpDifference(op.name, op.kind, steps, unlike, int(ours.size)))
    return found


def _where_same(op: Op, here: Values, there: Values) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """An operator's outputs in both networks, for those samples for which its inputs are the same."""
    ours, theirs = here[op.outputs[0]], there.get(op.outputs[0])
    samples, nothing = len(ours) if ours.ndim else 0, np.empty(0, np.float32)
    if theirs is None or theirs.shape != ours.shape or not samples:
        return nothing, nothing
    same = np.ones(samples, bool)
    for tensor in op.inputs:
        if tensor in here:
            mine, its = here[tensor], there[tensor]
            if mine.shape != its.shape or not mine.ndim or len(mine) != samples:
                return nothing, nothing
            same &= (mine == its).reshape(samples, -1).all(1)
    return ours[same], theirs[same]


def _steps(
    here: npt.NDArray[Any], there: npt.NDArray[Any], scale: float | None
) -> tuple[float, npt.NDArray[np.float64] | None]:
    """By how many steps values are apart, at most and each; infinite, and None, where they are not as many."""
    if here.shape != there.shape:
        return float("inf"), None
    if here.dtype.kind != "f":
        apart = (here != there).astype(np.float64)
        return float(apart.max(initial=0.0)), apart
    finite = here[np.isfinite(here)]
    step = scale or (float(np.ptp(finite)) / _CODES if finite.size else 0.0) or 1.0
    same = (here == there) | (np.isnan(here) & np.isnan(there))
    with np.errstate(invalid="ignore"):  # The same infinities.
        far = np.where(same, 0.0, np.abs(here.astype(np.float64) - there))
    apart = np.nan_to_num(far, nan=np.inf) / step
    return float(apart.max(initial=0.0)), apart


def _gap(values: npt.NDArray[Any]) -> float | None:
    """The least distance between values of a tensor that is codes."""
    gaps = np.diff(np.unique(values))
    return float(gaps[gaps > _SAME * gaps.max()].min()) if gaps.size and gaps.max() > 0 else None
