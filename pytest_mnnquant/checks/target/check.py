"""Target: whether a target computes what this machine does, and which operator makes the difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.outputs import Outputs
from pytest_mnnquant.checks.target.mnn_versions import Runtimes
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics, OperatorDifference, TargetDifference
from pytest_mnnquant.findings.cause import Cause, joined
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.measurements.operators import OperatorKey, Operators

#: A code that is rounded to the other side is one step off; what is further off is computed otherwise.
ROUNDING: Final = 1.05
#: Float numbers have no step of their own: they are counted in that which 8 bits would have over their range.
_CODES: Final = 255
# Below this share of a step, float numbers were only summed in another order.
_SAME: Final = 0.01
_NAMED: Final = 3
# What stands between operators, in one place or the other.
_CASTS: Final = frozenset({"FloatToInt8", "Int8ToFloat", "Raster"})


@dataclass(frozen=True, slots=True)
class OpDifference:
    """By how much an operator's output differs where it is given the same: in steps, at most; of how many values.

    `moves` is by how many steps an output of the network moves when this operator alone differs; None: not looked at.
    """

    key: OperatorKey
    steps: float
    unlike: int
    values: int
    moves: float | None = None

    @property
    def title(self) -> str:
        """Its name and kind."""
        return f"{self.key.name} ({self.key.kind})"


class Scales(NamedTuple):
    """The scales of the quantized tensors that an operator of the file takes and makes."""

    inputs: tuple[float, ...] = ()
    outputs: tuple[float, ...] = ()


@dataclass(frozen=True)
class TargetEvidence:
    """Outputs as they were judged on this machine and as a target gives them, with the scales of those that are codes.

    `operators` were looked at one by one on so many `samples`, but for the `uncompared`; None where that was not done,
    and `unlooked` says why. `mispooled` are MaxPool operators where int8 MaxPool is wrong.
    """

    target: str
    here: Outputs
    there: Outputs
    scales: Mapping[str, float]
    operators: Sequence[OpDifference] | None = None
    uncompared: Sequence[str] = ()
    samples: int = 0
    unlooked: str = ""
    runtimes: Runtimes = field(default_factory=Runtimes)
    wrongly_pooled: Collection[str] = ()

    @property
    def steps(self) -> dict[str, float]:
        """By how many steps each output differs at most."""
        both = {name: self.there[name] for name in self.here if name in self.there}
        return {name: _steps(self.here[name], there, self.scales.get(name))[0] for name, there in both.items()}


def compare_with_host(evidence: TargetEvidence, metrics: AccuracyMetrics) -> tuple[list[Finding], AccuracyMetrics]:
    """Report how the target's outputs differ from the host's. It fails nothing: accuracy decides.

    Returns the findings, and the metrics with the difference.
    """
    steps = evidence.steps
    output = max(steps, key=lambda name: steps[name], default="")
    unlike = sorted((one for one in evidence.operators or () if one.unlike or one.moves), key=_weight, reverse=True)
    difference = TargetDifference(steps.get(output, 0.0), steps)
    if evidence.operators is not None:
        difference = dataclasses.replace(
            difference,
            operators=tuple(_operator(one) for one in unlike),
            compared=len(evidence.operators),
            uncompared=tuple(evidence.uncompared),
        )
    metrics = dataclasses.replace(metrics, difference=difference)
    if difference.steps <= ROUNDING:
        return [], metrics
    outputs_text = f"output {output} differs by {steps[output]:.3g} steps from this machine's"
    if differing := [one for one in unlike if one.steps > ROUNDING]:
        return [_operator_finding(differing, evidence, outputs_text)], metrics
    if unlike:
        return [], dataclasses.replace(metrics, note=_rounded(evidence, unlike, output))
    unseen = f"on the {evidence.samples} samples looked at no operator differs{_missed(evidence)}"
    unknown = Cause("operator-not-found", f"what makes it is not known: {evidence.unlooked or unseen}")
    return [Finding("MNQ740", outputs_text, cause=joined(evidence.runtimes.cause, unknown), fix=_REMEDY)], metrics


_MAX_POOL: Final = Cause("max-pool-compares-signed", "MNN's int8 MaxPool is wrong on x86, and right on ARM (MNQ710)")
_NOT_ROUNDING: Final = Cause("more-than-rounding", "rounding makes one step at most")
_REMEDY: Final = "what counts is what the device computes: the accuracy on this target"


def _weight(one: OpDifference) -> tuple[float, float]:
    """What they are sorted by; of those alike the first in the network comes first."""
    return one.moves or 0.0, one.steps


def _operator(one: OpDifference) -> OperatorDifference:
    return OperatorDifference(one.key.name, one.key.kind, one.steps, one.unlike, one.values, one.moves)


def _operator_finding(differing: Sequence[OpDifference], evidence: TargetEvidence, told: str) -> Finding:
    worst, others = differing[0], [difference.key.name for difference in differing[1:]]
    target, runtimes = evidence.target, evidence.runtimes
    counted = f"{worst.unlike:,} of {worst.values:,} values"
    moved = f", which alone moves it by {worst.moves:.3g}" if worst.moves else ""
    message = (
        f"given the same input, {worst.title} on {target} is up to {worst.steps:.3g} steps from here ({counted}); "
    )
    also = f"; so {'is' if len(others) == 1 else 'are'} {_listed(others)}" if others else ""
    cause = joined(
        runtimes.cause or Cause("different-kernels", "the two run different kernels"),
        _MAX_POOL if worst.key.name in evidence.wrongly_pooled else None,
        _NOT_ROUNDING,
    )
    return Finding("MNQ740", message + told + moved + also, worst.key.name, cause=cause, fix=_REMEDY)


def _rounded(evidence: TargetEvidence, unlike: Sequence[OpDifference], output: str) -> str:
    """Why outputs differ though no operator does: each rounds as it may, and the layers after it carry that on."""
    all_, most = evidence.operators or (), unlike[0]
    differing = sum(difference.unlike > 0 for difference in unlike)
    summary = (
        f"output {output} is {evidence.steps[output]:.3g} steps from this machine's by rounding: given the same "
        f"values, none of {len(all_)} operators is more than a step off, and {differing} "
        "are at all"
    )
    if most.moves:
        how = f"in {most.unlike / most.values:.1%} of its values" if most.unlike else "which sums in another order"
        summary += f"; {most.title}, {how}, moves an output by {most.moves:.3g} steps alone"
    return summary + _missed(evidence)


def _missed(evidence: TargetEvidence) -> str:
    """Which operators could not be compared; another MNN may take codes of other scales there."""
    missed = list(dict.fromkeys(evidence.uncompared))
    return f"; {_listed(missed)} could not be given the same values" if missed else ""


def _listed(names: Sequence[str]) -> str:
    """The first of them."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def differences(
    here: Operators, there: Operators, scales: Mapping[str, Scales]
) -> tuple[list[OpDifference], list[str]]:
    """Operators by what they make of the same values in both places, and the names of those that can't be compared.

    `scales` are those of the file, by an operator's name.
    """
    op_differences, uncompared = [], []
    for which, on_host in here.items():
        on_target = there.get(which)
        if (
            on_target is None
            or on_target.ignored_inputs
            or [array.shape for array in on_host.outputs] != [array.shape for array in on_target.outputs]
        ):
            uncompared += [which.name] if which.kind not in _CASTS else []
            continue
        steps, unlike = 0.0, 0
        for place, (mine, its) in enumerate(zip(on_host.outputs, on_target.outputs, strict=True)):
            scale = _step(mine, which, place, scales.get(which.name, Scales()), on_host.int8)
            most, off = _steps(mine, its, scale)
            steps, unlike = max(steps, most), unlike + (int((off > _SAME).sum()) if off is not None else mine.size)
        values = sum(mine.size for mine in on_host.outputs)
        op_differences += [OpDifference(which, steps, unlike, values)] if values else []
    return op_differences, uncompared


def _step(values: npt.NDArray[Any], which: OperatorKey, place: int, scales: Scales, int8: bool) -> float | None:
    """The step to count in: of codes that scale of which all are multiples, or else their least distance.

    Of float numbers it is the scale that the file gives the operator's output, to whose codes another MNN may round
    them; None where it gives none.
    """
    own = scales.outputs[place] if place < len(scales.outputs) and which.kind not in _CASTS else None
    if not int8:
        return own
    for scale in (*scales.outputs, *scales.inputs):
        if np.allclose(values / scale, np.rint(values / scale), rtol=0, atol=_SAME):
            return scale
    return _gap(values)


def furthest(here: Outputs, there: Outputs, scales: Mapping[str, float]) -> float:
    """By how many steps outputs are apart at most."""
    return max((_steps(array, there[name], scales.get(name))[0] for name, array in here.items()), default=0.0)


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
