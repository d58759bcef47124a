"""Held-out values against what a tensor's codes can hold: those that are clipped, and steps too coarse for them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.run_metrics import CalibrationMetrics
from pytest_mnnquant.measurements.run import Losses

# Share of a tensor's energy. Measured on 15 networks, 5 observers and 18 calibration sets: where the task metric did
# not fall, clipping took less than 0.04 and rounding less than 0.08 from any tensor but one of those that KL clips on
# purpose; where it fell, clipping took more than 0.12 or rounding 1.0 from most.
ALLOWED: Final = 0.1
_RUINED: Final = 0.5
_SEVERAL: Final = 3
_NAMED: Final = 3
Spans = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Misfit:
    """How a tensor does not fit: what was measured, why, and how to fix it."""

    message: str
    cause: Cause | None
    fix: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A quantized tensor and what its codes lose of held-out values, as the float model computes them.

    `low` and `high` are the smallest and largest value that its codes stand for. `losses` is None where the tensor did
    not appear in the run.
    """

    layer: str
    tensor: str
    scale: float
    low: float
    high: float
    losses: Losses | None

    @property
    def clipped(self) -> float:
        """Share of the energy that clipping takes away."""
        return self.losses.clipped if self.losses else 0.0

    @property
    def rounded(self) -> float:
        """Share of the energy that rounding takes away."""
        return self.losses.rounded if self.losses else 0.0

    @property
    def outside(self) -> float:
        """Share of the values that are clipped."""
        return self.losses.outside if self.losses else 0.0


def is_scale(scale: float) -> bool:
    """Whether this can be the step of anything."""
    return math.isfinite(scale) and scale > 0


def judge_fit(tensors: Sequence[HeldOut], seen: Spans) -> list[Finding]:
    """Findings on tensors that do not fit. `seen` gives the range of tensors in the calibration data, by name."""
    findings = [_impossible(tensor) for tensor in tensors if not _is_plausible(tensor)][:1]
    tensors = [tensor for tensor in tensors if _is_plausible(tensor)]
    findings += _judge(tensors, lambda tensor: tensor.clipped, "MNQ540", lambda worst: _clipping(worst, seen))
    return findings + _judge(
        tensors, lambda tensor: tensor.rounded, "MNQ541", lambda worst: _rounding(worst, seen, tensors)
    )


def with_fit(metrics: CalibrationMetrics, tensors: Sequence[HeldOut]) -> CalibrationMetrics:
    """The metrics with the worst tensors."""
    measured = [tensor for tensor in tensors if tensor.losses]
    metrics = dataclasses.replace(metrics, tensors=len(tensors), tensors_measured=len(measured))
    if not measured:
        return metrics
    clipped = max(measured, key=lambda tensor: (tensor.clipped, tensor.outside))
    rounded = max(measured, key=lambda tensor: tensor.rounded)
    return dataclasses.replace(
        metrics,
        clipped_energy=clipped.clipped,
        clipped_values=clipped.outside,
        clipped_tensor=clipped.tensor,
        rounded_energy=rounded.rounded,
        rounded_tensor=rounded.tensor,
    )


def _is_plausible(tensor: HeldOut) -> bool:
    # A scale of 0 is what tools write for a tensor that was always 0.
    return is_scale(tensor.scale) or tensor.scale == 0


def _impossible(tensor: HeldOut) -> Finding:
    message = f"tensor {tensor.tensor!r} has the scale {tensor.scale:g}"
    return Finding("MNQ417", message, tensor.layer, fix="calibrate again, and look at the values that are fed")


def _judge(
    tensors: Sequence[HeldOut],
    share: Callable[[HeldOut], float],
    code: str,
    explain: Callable[[HeldOut], _Misfit],
) -> list[Finding]:
    bad = sorted((tensor for tensor in tensors if share(tensor) >= ALLOWED), key=share, reverse=True)
    if not bad:
        return []
    # Where data are at fault most are ruined alike: the first of them, in the order of the network, says it best.
    worst = next((tensor for tensor in tensors if share(tensor) >= _RUINED), bad[0])
    bad = [tensor for tensor in bad if tensor is not worst]
    # One tensor may be clipped at no cost, before an activation that saturates; a ruined one, or several, may not.
    is_harmed = share(worst) >= _RUINED or 1 + len(bad) >= _SEVERAL
    misfit = explain(worst)
    message = f"{misfit.message} ({ALLOWED:.0%} allowed)"
    if bad:
        others = ", ".join(tensor.tensor for tensor in bad[:_NAMED])
        dots = ", ..." if len(bad) > _NAMED else ""
        message += f"; so for {len(bad)} more of {len(tensors)} tensors ({others}{dots})"
    return [Finding(code, message, worst.layer, cause=misfit.cause, fix=misfit.fix, as_warning=not is_harmed)]


def _clipping(worst: HeldOut, seen: Spans) -> _Misfit:
    losses = worst.losses
    assert losses is not None
    reach = f"the values span {losses.low:.4g} to {losses.high:.4g}, its codes hold {worst.low:.4g} to {worst.high:.4g}"
    if not worst.scale:
        reach = "its scale is 0"
    message = (
        f"tensor {worst.tensor!r}: {losses.outside:.1%} of the held-out values and {losses.clipped:.1%} of their "
        f"energy are clipped: {reach}"
    )
    low, high = seen.get(worst.tensor, (math.nan, math.nan))
    width, wanted = high - low, losses.high - losses.low
    if width >= 0.75 * wanted:
        text = f"calibration saw {low:.4g} to {high:.4g}, so the range was cut on purpose or taken from something else"
        fix = "take the whole range (--mnn-recipe=int8, whose observer is min-max), or calibrate again"
        return _Misfit(message, Cause("range-cut", text), fix)
    if width < 0.75 * wanted:
        text = f"calibration saw {low:.4g} to {high:.4g} only: its data are not like the evaluation data"
        fix = "calibrate on samples like those that the model will meet (--mnn-calibration)"
        return _Misfit(message, Cause("calibration-range-too-narrow", text), fix)
    return _Misfit(message, None, "calibrate again, on samples like those that the model will meet")


def _rounding(worst: HeldOut, seen: Spans, tensors: Sequence[HeldOut]) -> _Misfit:
    losses = worst.losses
    assert losses is not None
    louder = [
        tensor_fit.tensor for tensor_fit in tensors if tensor_fit.scale == worst.scale and tensor_fit.rounded < ALLOWED
    ]
    used = (losses.high - losses.low) / worst.scale
    message = (
        f"tensor {worst.tensor!r}: steps of {worst.scale:.4g} take {losses.rounded:.1%} of the energy of the held-out "
        f"values, which span {losses.low:.4g} to {losses.high:.4g}, {used:.2g} steps of 254"
    )
    if louder and not _is_wide(seen.get(worst.tensor), losses):
        text = (
            f"it has the very scale of {louder[0]!r}: MNN's tools give all inputs of a Concat one scale, the loudest's"
        )
        fix = "leave this layer float (--mnn-skip-layer), or calibrate by --mnn-recipe=int8, which gives each its own"
        return _Misfit(message, Cause("concat-shares-scale", text), fix)
    if worst.tensor in seen:
        low, high = seen[worst.tensor]
        text = f"calibration saw {low:.4g} to {high:.4g}"
    else:
        text = "calibration saw a far wider range: data without their preprocessing, or memory never filled"
    fix = "calibrate on samples preprocessed as the evaluation's are (--mnn-calibration)"
    return _Misfit(message, Cause("calibration-range-too-wide", text), fix)


def _is_wide(span: tuple[float, float] | None, losses: Losses) -> bool:
    """Whether calibration saw a far wider range than the held-out values have."""
    return span is not None and span[1] - span[0] > 2 * (losses.high - losses.low)
