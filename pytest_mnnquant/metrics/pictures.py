"""PSNR and SSIM of pictures, per sample. Pictures are [samples, channels, height, width] after `aligned`.

PSNR is 10 log10(span^2 / mean square error), at most 50 dB. SSIM is that of Wang, Bovik, Sheikh and Simoncelli, "Image
quality assessment: from error visibility to structural similarity", 2004: a Gaussian window of 11 x 11 with sigma 1.5,
K1 0.01 and K2 0.03, mean over the windows that lie inside the picture, and over channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import blocks, bounds_of, largest_of, values_at

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_WINDOW: Final = 11
_SIGMA: Final = 1.5
_K1, _K2 = 0.01, 0.03
#: The highest PSNR of a picture, in dB: from here on, errors are below one of 255 grey levels and not visible.
HIGHEST: Final = 50.0
_MOST_CHANNELS: Final = 4
# How far float targets may be outside of their range: filters overshoot.
_BEYOND: Final = 0.1
# Outputs this many times larger or smaller than the targets have another range.
_OTHER_SCALE: Final = 20.0
# The most values that a quantile is taken from.
_VALUES: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The lowest and the highest value of a picture."""

    low: float
    high: float

    @property
    def span(self) -> float:
        """The highest minus the lowest value."""
        return self.high - self.low

    def __str__(self) -> str:
        return f"values {self.low:g}..{self.high:g}"


UNIT: Final = ValueRange(0, 1)
SIGNED: Final = ValueRange(-1, 1)
BYTES: Final = ValueRange(0, 255)


def are_pictures(output: Array, targets: Array) -> bool:
    """Whether both hold the same pictures in float or integers, with height and width."""
    numbers = output.dtype.kind == "f" and targets.dtype.kind in "fiu"
    return numbers and output.ndim >= 3 and targets.ndim >= 3 and _placed(output, targets) is not None


def _placed(output: Array, targets: Array) -> Array | None:
    """The targets in the output's axes: equal, with channels last instead of first or the reverse, or without them."""
    if targets.shape == output.shape:
        return targets
    if targets.ndim == output.ndim == 4:
        for moved in (np.moveaxis(targets, -1, 1), np.moveaxis(targets, 1, -1)):
            if moved.shape == output.shape:
                return moved
    without_channels = [size for size in output.shape[1:] if size > 1]
    if [len(targets), *(size for size in targets.shape[1:] if size > 1)] == [len(output), *without_channels]:
        return targets.reshape(output.shape)
    return None


def aligned(output: Array, targets: Array) -> tuple[Array, Array]:
    """Both as [samples, channels, height, width]. Raises `ValueError` if they do not fit."""
    placed = _placed(output, targets)
    if placed is None:
        raise ValueError(f"the targets have shape {list(targets.shape)}, the output {list(output.shape)}")
    pair = (output, placed)
    if output.ndim == 3:
        return pair[0][:, None], pair[1][:, None]
    if output.shape[-1] <= _MOST_CHANNELS < output.shape[1]:
        return np.moveaxis(pair[0], -1, 1), np.moveaxis(pair[1], -1, 1)
    return pair


def value_range(targets: Array) -> ValueRange:
    """0..255, -1..1 or 0..1, whichever the targets need. Raises `ValueError` for values outside of all."""
    low, high = bounds_of(targets)
    if not np.isfinite([low, high]).all():
        raise ValueError("the target pictures hold NaN or infinity")
    fits = SIGNED if low < -_BEYOND else UNIT
    if targets.dtype.kind in "iu" or high > SIGNED.high + _BEYOND:
        fits = BYTES
    slack = _BEYOND * fits.span / 2
    if low < fits.low - slack or high > fits.high + slack:
        raise ValueError(
            f"the target pictures have values from {low:g} to {high:g}; known ranges: {UNIT}, {SIGNED}, {BYTES}"
        )
    return fits


def other_range(output: Array, targets: Array) -> str:
    """Why the output's values are in another range than the targets', from the float model; empty if they are not."""
    span, most = value_range(targets), largest_of(output)
    least = float(np.quantile(values_at(output, 1 + output.size // _VALUES), 0.01))
    if most * _OTHER_SCALE < largest_of(targets) or most > _OTHER_SCALE * span.span:
        return f"the target pictures have {span}, the output reaches {most:.3g}"
    if span != SIGNED and least < -0.3 * span.high:
        return f"the target pictures have {span}, 1 % of the output is below {least:.3g}"
    return ""


def psnr(output: Array, targets: Array, span: ValueRange) -> Floats:
    """PSNR of each picture in dB, at most 50. Values outside of the range are clipped, as on a screen."""
    errors = np.concatenate(
        [np.square(made.clip(span.low, span.high) - real).mean(1) for _, (made, real) in blocks(output, targets)]
    )
    least = span.span**2 * 10 ** (-HIGHEST / 10)
    return np.asarray(10 * np.log10(span.span**2 / np.maximum(errors, least)), np.float64)


def ssim(output: Array, targets: Array, span: ValueRange) -> Floats:
    """SSIM of each picture, at most 1. Raises `ValueError` for pictures smaller than the window."""
    if min(output.shape[2:]) < _WINDOW:
        raise ValueError(f"SSIM needs pictures of {_WINDOW} x {_WINDOW} pixels or more, not {list(output.shape[2:])}")
    values = []
    for made, real in zip(output, targets, strict=True):  # One by one: the windows of all would fill the memory.
        values.append(_structure(made.astype(np.float64).clip(span.low, span.high), real.astype(np.float64), span))
    return np.array(values)


def _structure(made: Floats, real: Floats, span: ValueRange) -> float:
    first, second = (_K1 * span.span) ** 2, (_K2 * span.span) ** 2
    mean_made, mean_real = _blurred(made), _blurred(real)
    variances = _blurred(made * made) - mean_made**2 + _blurred(real * real) - mean_real**2
    covariance = _blurred(made * real) - mean_made * mean_real
    light = (2 * mean_made * mean_real + first) / (mean_made**2 + mean_real**2 + first)
    return float((light * (2 * covariance + second) / (variances + second)).mean())


def _blurred(picture: Floats) -> Floats:
    """The Gaussian mean of each whole window."""
    places = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(places**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    for axis in (-2, -1):
        windows = np.lib.stride_tricks.sliding_window_view(picture, _WINDOW, axis=axis)
        picture = windows @ weights
    return picture
