"""Held-out values that a tensor's codes clip, and quantization steps that are too coarse for them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.fix_command import skip_option
from pytest_mnnquant.findings.run_metrics import CalibrationMetrics
from pytest_mnnquant.measurements.run import Losses

# Share of a tensor's energy. Measured on 15 networks, 5 observers and 18 calibration sets: if the task metric did not
# fall, clipping removed less than 0.04 and rounding less than 0.08 from each tensor, except one that KL clips on
# purpose; if it fell, clipping removed more than 0.12 or rounding 1.0 from most tensors.
ALLOWED: Final = 0.1
# Held-out values that span less of a quantization step than this: no calibration data explain such a step.
_IMPOSSIBLE: Final = 1e-6
_RUINED: Final = 0.5
_SEVERAL: Final = 3
_NAMED: Final = 3
Spans = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Misfit:
    """Why the codes of a tensor do not fit its values: what was measured, the cause, and the fix."""

    message: str
    cause: Cause | None
    fix: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A quantized tensor and what its codes lose of the held-out values that the float model computes.

    `low` and `high` are the smallest and largest value that its codes represent. `losses` is None if the tensor did
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
        """Share of the energy that clipping removes."""
        return self.losses.clipped if self.losses else 0.0

    @property
    def rounded(self) -> float:
        """Share of the energy that rounding removes."""
        return self.losses.rounded if self.losses else 0.0

    @property
    def outside(self) -> float:
        """Share of the values that are clipped."""
        return self.losses.outside if self.losses else 0.0


def is_scale(scale: float) -> bool:
    """Whether this number can be a scale."""
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
    # Tools write a scale of 0 for a tensor that was always 0.
    return is_scale(tensor.scale) or tensor.scale == 0


def _impossible(tensor: HeldOut) -> Finding:
    message = f"tensor {tensor.tensor!r} has the scale {tensor.scale:g}"
    return Finding("MNQ417", message, tensor.layer, fix="calibrate again; check the calibration data for NaN")


def _judge(
    tensors: Sequence[HeldOut],
    share: Callable[[HeldOut], float],
    code: str,
    explain: Callable[[HeldOut], _Misfit],
) -> list[Finding]:
    bad = sorted((tensor for tensor in tensors if share(tensor) >= ALLOWED), key=share, reverse=True)
    if not bad:
        return []
    # Wrong data ruin most tensors: report the first of them in network order.
    worst = next((tensor for tensor in tensors if share(tensor) >= _RUINED), bad[0])
    bad = [tensor for tensor in bad if tensor is not worst]
    # A single tensor may be clipped without harm, before a saturating activation; a ruined one or several may not.
    is_harmed = share(worst) >= _RUINED or 1 + len(bad) >= _SEVERAL
    misfit = explain(worst)
    message = f"{misfit.message} ({ALLOWED:.0%} allowed)"
    if bad:
        others = ", ".join(tensor.tensor for tensor in bad[:_NAMED])
        dots = ", ..." if len(bad) > _NAMED else ""
        message += f"; {len(bad)} of {len(tensors) - 1} other tensors are affected too ({others}{dots})"
    return [Finding(code, message, worst.layer, cause=misfit.cause, fix=misfit.fix, as_warning=not is_harmed)]


def _clipping(worst: HeldOut, seen: Spans) -> _Misfit:
    losses = worst.losses
    assert losses is not None
    reach = f"values span {losses.low:.4g} to {losses.high:.4g}, the codes cover {worst.low:.4g} to {worst.high:.4g}"
    if not worst.scale:
        reach = "the scale is 0"
    message = (
        f"tensor {worst.tensor!r}: {losses.outside:.1%} of the held-out values and {losses.clipped:.1%} of their "
        f"energy are clipped: {reach}"
    )
    low, high = seen.get(worst.tensor, (math.nan, math.nan))
    width, required = high - low, losses.high - losses.low
    if width >= 0.75 * required:
        text = f"calibration saw {low:.4g} to {high:.4g}: the observer cut this range, or took it from other data"
        fix = "use the full range (--mnn-recipe=int8, whose observer is min-max), or calibrate again"
        return _Misfit(message, Cause("range-cut", text), fix)
    fix = "calibrate on representative samples (--mnn-calibration)"
    if width < 0.75 * required:
        text = f"calibration saw only {low:.4g} to {high:.4g}: its data differ from the evaluation data"
        return _Misfit(message, Cause("calibration-range-too-narrow", text), fix)
    return _Misfit(message, None, fix)


def _rounding(worst: HeldOut, seen: Spans, tensors: Sequence[HeldOut]) -> _Misfit:
    losses = worst.losses
    assert losses is not None
    wider = [tensor.tensor for tensor in tensors if tensor.scale == worst.scale and tensor.rounded < ALLOWED]
    used = (losses.high - losses.low) / worst.scale
    message = (
        f"tensor {worst.tensor!r}: quantization step {worst.scale:.4g} is too coarse: held-out values span "
        f"{losses.low:.4g} to {losses.high:.4g}, which is {used:.2g} steps (254 are available), so rounding removes "
        f"{losses.rounded:.1%} of their energy"
    )
    if wider and not _is_wide(seen.get(worst.tensor), losses):
        text = f"it shares the scale of {wider[0]!r}: MNN's tools give all inputs of a Concat the scale of the widest"
        fix = "use --mnn-recipe=int8, which gives each input its own scale; "
        fix += f"to keep the layer float, add {skip_option(worst.layer)}"
        return _Misfit(message, Cause("concat-shares-scale", text), fix)
    if worst.tensor in seen:
        low, high = seen[worst.tensor]
        text = f"calibration saw {low:.4g} to {high:.4g}"
    elif used < _IMPOSSIBLE:
        text = "no data have such a range: calibration read uninitialized memory, as for an input file that is missing"
        fix = "check that the calibration finds and reads the file of every input, then calibrate again"
        return _Misfit(message, Cause("calibration-read-no-data", text), fix)
    else:
        text = "calibration saw a far wider range, such as that of samples without preprocessing"
    fix = "calibrate on samples with the preprocessing of the evaluation data (--mnn-calibration)"
    return _Misfit(message, Cause("calibration-range-too-wide", text), fix)


def _is_wide(span: tuple[float, float] | None, losses: Losses) -> bool:
    """Whether calibration saw a far wider range than the held-out values have."""
    return span is not None and span[1] - span[0] > 2 * (losses.high - losses.low)
