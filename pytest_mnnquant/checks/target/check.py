"""Target: how a target's outputs differ from this host's, and which operator makes the difference."""

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
from pytest_mnnquant.metrics.blocks import sample_blocks

#: Rounding differences are at most one step; a larger difference comes from another computation.
ROUNDING: Final = 1.05
#: Float values have no quantization step: the step of 8 bits over their range is used.
_CODES: Final = 255
# Below this share of a step, float values were only summed in another order.
_SAME: Final = 0.01
_NAMED: Final = 3
# Operators that MNN inserts between others on the host or on the target.
_CASTS: Final = frozenset({"FloatToInt8", "Int8ToFloat", "Raster"})


@dataclass(frozen=True, slots=True)
class OpDifference:
    """The difference of an operator's output for equal inputs: at most `steps`, in `unlike` of its `values`.

    `moves` is by how many steps an output of the network changes if this operator alone differs; None: not measured.
    """

    key: OperatorKey
    steps: float
    unlike: int
    values: int
    moves: float | None = None

    @property
    def title(self) -> str:
        """The operator's name and kind."""
        return f"{self.key.name} ({self.key.kind})"


class Scales(NamedTuple):
    """The scales of an operator's quantized input and output tensors, as stored in the file."""

    inputs: tuple[float, ...] = ()
    outputs: tuple[float, ...] = ()


@dataclass(frozen=True)
class TargetEvidence:
    """Outputs as judged on this host and as computed on a target, with the scales of those that are codes.

    `operators` were compared one by one on `samples` samples, except the `uncompared`; None if they were not compared,
    and `unlooked` is the reason. `wrongly_pooled` are int8 MaxPool operators that the host or the target gets wrong.
    """

    target: str
    on_host: Outputs
    on_target: Outputs
    scales: Mapping[str, float]
    operators: Sequence[OpDifference] | None = None
    uncompared: Sequence[str] = ()
    samples: int = 0
    unlooked: str = ""
    runtimes: Runtimes = field(default_factory=Runtimes)
    wrongly_pooled: Collection[str] = ()

    @property
    def steps(self) -> dict[str, float]:
        """The largest difference of each output, in steps."""
        return {
            name: _steps(array, self.on_target[name], self.scales.get(name))[0]
            for name, array in self.on_host.items()
            if name in self.on_target
        }


def compare_with_host(evidence: TargetEvidence, metrics: AccuracyMetrics) -> tuple[list[Finding], AccuracyMetrics]:
    """Report how the target's outputs differ from the host's. No difference is an error: accuracy decides.

    Returns the findings, and the metrics with the difference.
    """
    steps = evidence.steps
    output = max(steps, key=lambda name: steps[name], default="")
    operators = evidence.operators or ()
    unlike = sorted(
        (operator for operator in operators if operator.unlike or operator.moves), key=_weight, reverse=True
    )
    difference = TargetDifference(steps.get(output, 0.0), steps)
    if evidence.operators is not None:
        difference = dataclasses.replace(
            difference,
            operators=tuple(_metrics(operator) for operator in unlike),
            compared=len(evidence.operators),
            uncompared=tuple(evidence.uncompared),
        )
    metrics = dataclasses.replace(metrics, difference=difference)
    if difference.steps <= ROUNDING:
        return [], metrics
    outputs_text = f"output {output} differs by up to {steps[output]:.3g} quantization steps from the host"
    if differing := [operator for operator in unlike if operator.steps > ROUNDING]:
        return [_operator_finding(differing, evidence, outputs_text)], metrics
    if unlike:
        return [], dataclasses.replace(metrics, note=_rounded(evidence, unlike, output))
    unseen = f"no operator differs on the {evidence.samples} compared samples{_missed(evidence)}"
    unknown = Cause("operator-not-found", f"the operator that causes this is unknown: {evidence.unlooked or unseen}")
    return [Finding("MNQ740", outputs_text, cause=joined(evidence.runtimes.cause, unknown), fix=_REMEDY)], metrics


def main_difference(metrics: AccuracyMetrics) -> OperatorDifference | None:
    """The operator whose difference makes most of the outputs'; None if none makes at least half of it."""
    difference = metrics.difference
    if difference is None or difference.steps <= ROUNDING:
        return None
    worst = max(difference.operators or (), key=lambda operator: operator.moves or 0.0, default=None)
    return worst if worst is not None and (worst.moves or 0.0) >= difference.steps / 2 else None


_MAX_POOL: Final = Cause("max-pool-compares-signed", "MNN's int8 MaxPool is wrong on x86 and correct on ARM (MNQ710)")
_NOT_ROUNDING: Final = Cause("more-than-rounding", "rounding explains at most one step")
_REMEDY: Final = "rely on the accuracy on this target: it is what the device computes"


def _weight(difference: OpDifference) -> tuple[float, float]:
    """The sort key; equal operators keep the order of the network."""
    return difference.moves or 0.0, difference.steps


def _metrics(difference: OpDifference) -> OperatorDifference:
    key = difference.key
    return OperatorDifference(
        key.name, key.kind, difference.steps, difference.unlike, difference.values, difference.moves
    )


def _operator_finding(differing: Sequence[OpDifference], evidence: TargetEvidence, outputs_text: str) -> Finding:
    worst, others = differing[0], [difference.key.name for difference in differing[1:]]
    target, runtimes = evidence.target, evidence.runtimes
    counted = f"{worst.unlike:,} of {worst.values:,} values"
    moved = f", {worst.moves:.3g} of them by this operator alone" if worst.moves else ""
    message = (
        f"given the same input, {worst.title} on {target} differs by up to {worst.steps:.3g} quantization steps from "
        f"the host ({counted}); "
    )
    also = f"; {_listed(others)} {'differs' if len(others) == 1 else 'differ'} too" if others else ""
    cause = joined(
        runtimes.cause or Cause("different-kernels", "the target and this host run different kernels"),
        _MAX_POOL if worst.key.name in evidence.wrongly_pooled else None,
        _NOT_ROUNDING,
    )
    return Finding("MNQ740", message + outputs_text + moved + also, worst.key.name, cause=cause, fix=_REMEDY)


def _rounded(evidence: TargetEvidence, unlike: Sequence[OpDifference], output: str) -> str:
    """Why outputs differ although no operator does: rounding differs, and the following layers propagate it."""
    all_, most = evidence.operators or (), unlike[0]
    differing = sum(difference.unlike > 0 for difference in unlike)
    summary = (
        f"output {output} differs by {evidence.steps[output]:.3g} quantization steps from the host, by rounding: given "
        f"the same values, none of {len(all_)} operators differs by more than one step, {differing} differ at all"
    )
    if most.moves:
        how = f"differs in {most.unlike / most.values:.1%} of its values" if most.unlike else "sums in another order"
        summary += f"; {most.title} {how}, which alone moves an output by {most.moves:.3g} steps"
    return summary + _missed(evidence)


def _missed(evidence: TargetEvidence) -> str:
    """The operators that could not be compared: another MNN version may use codes with other scales."""
    missed = list(dict.fromkeys(evidence.uncompared))
    return f"; {_listed(missed)} could not be compared with equal inputs" if missed else ""


def _listed(names: Sequence[str]) -> str:
    """The first names."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def differences(
    on_host: Operators, on_target: Operators, scales: Mapping[str, Scales]
) -> tuple[list[OpDifference], list[str]]:
    """The differences of operators that got equal inputs, and the names of those that can't be compared.

    `scales` are those of the file, by an operator's name.
    """
    op_differences, uncompared = [], []
    for key, host_run in on_host.items():
        target_run = on_target.get(key)
        if (
            target_run is None
            or target_run.ignored_inputs
            or [array.shape for array in host_run.outputs] != [array.shape for array in target_run.outputs]
        ):
            uncompared += [key.name] if key.kind not in _CASTS else []
            continue
        steps, unlike = 0.0, 0
        for number, (host, target) in enumerate(zip(host_run.outputs, target_run.outputs, strict=True)):
            scale = _step(host, key, number, scales.get(key.name, Scales()), host_run.int8)
            most, off = _steps(host, target, scale)
            steps, unlike = max(steps, most), unlike + (int((off > _SAME).sum()) if off is not None else host.size)
        values = sum(array.size for array in host_run.outputs)
        op_differences += [OpDifference(key, steps, unlike, values)] if values else []
    return op_differences, uncompared


def _step(values: npt.NDArray[Any], key: OperatorKey, number: int, scales: Scales, int8: bool) -> float | None:
    """The quantization step of output `number`: the scale that all values are multiples of, else their least distance.

    Float values get the scale that the file gives the operator's output, since another MNN may round them to its
    codes; None if it gives none.
    """
    output_scale = scales.outputs[number] if number < len(scales.outputs) and key.kind not in _CASTS else None
    if not int8:
        return output_scale
    for scale in (*scales.outputs, *scales.inputs):
        if np.allclose(values / scale, np.rint(values / scale), rtol=0, atol=_SAME):
            return scale
    return _gap(values)


def furthest(on_host: Outputs, on_target: Outputs, scales: Mapping[str, float]) -> float:
    """The largest difference between outputs, in steps."""
    return max((_furthest(array, on_target[name], scales.get(name)) for name, array in on_host.items()), default=0.0)


def _furthest(host: npt.NDArray[Any], target: npt.NDArray[Any], scale: float | None) -> float:
    if host.shape != target.shape:
        return float("inf")
    if not host.size:
        return 0.0
    step = scale or (_usual_step(host) if host.dtype.kind == "f" else 1.0)
    pairs = (pair for _, pair in sample_blocks(np.atleast_1d(host), np.atleast_1d(target)))
    return max(_steps(one, other, step)[0] for one, other in pairs)


def _usual_step(values: npt.NDArray[Any]) -> float:
    """The step of values without a scale: their range / the number of codes; 1 without a range."""
    finite = (block[np.isfinite(block)] for _, (block,) in sample_blocks(np.atleast_1d(values)))
    ends = [(float(part.min()), float(part.max())) for part in finite if part.size]
    return (max(end[1] for end in ends) - min(end[0] for end in ends)) / _CODES or 1.0 if ends else 1.0


def _steps(
    host: npt.NDArray[Any], target: npt.NDArray[Any], scale: float | None
) -> tuple[float, npt.NDArray[np.float64] | None]:
    """The largest difference and each difference, in steps; infinity and None if the shapes differ."""
    if host.shape != target.shape:
        return float("inf"), None
    if host.dtype.kind != "f":
        apart = (host != target).astype(np.float64)
        return float(apart.max(initial=0.0)), apart
    step = scale or _usual_step(host)
    same = (host == target) | (np.isnan(host) & np.isnan(target))
    with np.errstate(invalid="ignore"):  # Equal infinities.
        far = np.where(same, 0.0, np.abs(host.astype(np.float64) - target))
    apart = np.nan_to_num(far, nan=np.inf) / step
    return float(apart.max(initial=0.0)), apart


def _gap(values: npt.NDArray[Any]) -> float | None:
    """The least distance between the values of a quantized tensor."""
    gaps = np.diff(np.unique(values))
    return float(gaps[gaps > _SAME * gaps.max()].min()) if gaps.size and gaps.max() > 0 else None
