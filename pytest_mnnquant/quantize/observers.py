"""Observers: the range of a tensor from its values in calibration.

All use the extremes of each batch; those that clip on purpose also use a histogram over the whole range. Ranges are
asymmetric, so a tensor that is never negative keeps 0 as its lower end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.quantize.calibration import CODES, Range
from pytest_mnnquant.recipes.recipe import Observer

BINS: Final = 4096
# The default number of an observer: percent of the values that it keeps, momentum of its average.
_NUMBERS: Final = {"percentile": 99.99, "average": 0.99}
_HALF: Final = CODES / 2
# KL: levels of the quantized distribution, as in MNN and TensorRT; the step of the search differs from theirs.
_LEVELS: Final = 128
_STRIDE: Final = 8
_SHRINK: Final = np.linspace(0.1, 1.0, 91)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values fell in each of `BINS` equal bins between `low` and `high`; `counts` has shape [BINS]."""

    low: float
    high: float
    counts: npt.NDArray[np.float64]

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """The middle of each bin, shape [BINS]."""
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return (edges[:-1] + edges[1:]) / 2


def label_of(observer: Observer) -> str:
    """An observer with its number, as in records: `average0.99`, `percentile99.99`, `minmax`."""
    number = _number(observer)
    return observer.name if number is None else f"{observer.name}{number:g}"


def _number(observer: Observer) -> float | None:
    return _NUMBERS.get(observer.name) if observer.number is None else observer.number


def needs_histogram(observer: Observer) -> bool:
    """Whether an observer needs a histogram of the values besides the extremes of each batch."""
    return observer.name in ("percentile", "histogram", "kl")


def take_range(observer: Observer, batches: npt.NDArray[np.float64], histogram: Histogram | None = None) -> Range:
    """The range by an observer. `batches` holds min and max of each batch, in order: shape [batches, 2].

    Observers that need a histogram must get one, unless all values are equal.
    """
    low, high = float(batches[:, 0].min()), float(batches[:, 1].max())
    if observer.name == "average":
        return moving_average(batches, _number(observer) or 0.0)
    if needs_histogram(observer) and high > low:
        assert histogram is not None
        if observer.name == "percentile":
            return percentile(histogram, _number(observer) or 0.0)
        return least_error(histogram) if observer.name == "histogram" else divergence(histogram)
    return Range(low, high)


def moving_average(batches: npt.NDArray[np.float64], momentum: float) -> Range:
    """A moving average of the batches' ranges that starts with the first: the offline observer of mnncompress.

    In float32 and in the order of operations of mnncompress 0.3.2 (LSQ_quantizer.py, _FeatureFakeQuantModule), which
    gives the same scales: each batch's range is first aligned to its own zero point.
    """
    keep, new = np.float32(momentum), np.float32(1 - momentum)
    zero, half = np.float32(0), np.float32(_HALF)
    rows = batches.astype(np.float32)
    least, most = np.minimum(rows[:, 0], zero), np.maximum(rows[:, 1], zero)
    scale = (most - least) / np.float32(CODES)
    point = np.rint((zero - least) / np.where(scale > 0, scale, np.float32(1)) - half)
    nudged = scale > 0
    least = np.where(nudged, np.minimum((-half - point) * scale, zero), least)
    most = np.where(nudged, np.maximum((half - point) * scale, zero), most)
    low, high = rows[0]
    for lower, upper in zip(new * least, new * most, strict=True):
        low, high = min(keep * low + lower, zero), max(keep * high + upper, zero)
    return Range(float(low), float(high))


def percentile(histogram: Histogram, percent: float) -> Range:
    """The range that holds `percent` of all values, with equally many clipped at both ends."""
    total = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = (1 - percent / 100) / 2
    edges = np.linspace(histogram.low, histogram.high, len(total) + 1)
    low = edges[int(np.searchsorted(total, tail, side="right"))]
    high = edges[min(int(np.searchsorted(total, 1 - tail)) + 1, len(total))]
    return Range(float(low), float(high))


def least_error(histogram: Histogram) -> Range:
    """The range with the least squared error: rounding (step^2 / 12) inside, distance to the range outside.

    Both ends are tried independently, from a tenth of the full range to all of it.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    values, counts = histogram.centers, histogram.counts
    # Sums over all bins below an end give the error of clipping at that end.
    order = [np.concatenate([[0.0], np.cumsum(counts * values**power)]) for power in range(3)]
    edges = np.linspace(histogram.low, histogram.high, len(counts) + 1)

    def below(end: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
        return [np.interp(end, edges, sums) for sums in order]

    lows = low * _SHRINK if low < 0 else np.zeros(1)
    highs = high * _SHRINK if high > 0 else np.zeros(1)
    under, over = below(lows), [sums[-1] - part for sums, part in zip(order, below(highs), strict=True)]
    clipped_low = under[2] - 2 * lows * under[1] + lows**2 * under[0]
    clipped_high = over[2] - 2 * highs * over[1] + highs**2 * over[0]
    inside = counts.sum() - under[0][:, None] - over[0][None, :]
    steps = (highs[None, :] - lows[:, None]) / CODES
    error = clipped_low[:, None] + clipped_high[None, :] + inside * steps**2 / 12
    row, column = np.unravel_index(int(np.argmin(error)), error.shape)
    return Range(float(lows[row]), float(highs[column]))


def divergence(histogram: Histogram) -> Range:
    """The range |x| <= T whose 128 levels lose least information, by Kullback-Leibler divergence.

    The search of MNN's offline tool (tools/quantization/TensorStatistic.cpp) and of TensorRT (S. Migacz, 8-bit
    inference with TensorRT, 2017), on |x|; the range is then cut to the observed values: ReLU tensors keep all codes.
    """
    magnitude = np.abs(histogram.centers)
    top = float(max(abs(histogram.low), abs(histogram.high)))
    counts, edges = np.histogram(magnitude, BINS // 2, (0.0, top), weights=histogram.counts)
    counts = np.array(counts)
    counts[0] = 0  # Zeros are exact at any scale, and ReLU makes many: they would dominate.
    if not counts.any():
        return Range(histogram.low, histogram.high)
    ends = range(_LEVELS, len(counts) + 1, _STRIDE)
    _, best = min((_lost(counts, end), end) for end in ends)
    bound = float(edges[best])
    return Range(max(histogram.low, -bound), min(histogram.high, bound))


def _lost(counts: npt.NDArray[np.float64], end: int) -> float:
    """The divergence of the first `end` bins, the last of which holds all bins above, from their 128 levels."""
    real = counts[:end].copy()
    real[-1] += counts[end:].sum()
    level = np.arange(end) * _LEVELS // end
    filled = counts[:end] > 0
    sums = np.bincount(level, weights=counts[:end], minlength=_LEVELS)
    sizes = np.bincount(level, weights=filled, minlength=_LEVELS)
    coarse = np.where(filled, sums[level] / np.maximum(sizes[level], 1), 0.0)
    real, coarse = real / real.sum(), coarse / max(coarse.sum(), 1e-30)
    seen = real > 0
    return float((real[seen] * np.log(real[seen] / np.maximum(coarse[seen], 1e-10))).sum())
