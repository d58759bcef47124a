"""What an output shows about its input: its variation over samples, without the part that all samples have in common.

A detector's boxes, a mean picture or a positional code can be far larger than what differs between two samples. The
cosine of the whole output then stays near 1 although nothing is left of the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import blocks, mean_sample

Array = npt.NDArray[Any]
#: A variation below this share of the largest value is rounding noise of a constant.
CONSTANT: Final = 1e-4
# A constant element this many times as large as all that vary, and as 1, is a mask.
_MASK: Final = 100.0
# One-sided 95 % of the normal distribution.
_NORMAL: Final = 1.645
_TINY: Final = 1e-300


@dataclass(frozen=True, slots=True)
class Variation:
    """The variation of the reference over samples against the error of an output.

    `signal` and `noise` have shape [samples]: squared distance of each sample from the mean sample, and squared error.
    `signal` is multiplied by n / (n - 1), since the mean itself comes from these n samples. `peak` is the largest
    absolute value, `range` the largest minus the smallest value, `rms` the root mean square of the variation in one
    element; `is_frozen` is True if the output is the same for all samples. Masked elements count nowhere: they are
    constant and far larger than those that vary, such as logits of -1e9.
    """

    signal: npt.NDArray[np.float64]
    noise: npt.NDArray[np.float64]
    peak: float
    rms: float
    range: float
    is_frozen: bool

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.signal)

    @property
    def is_constant(self) -> bool:
        """Whether the reference does not vary by more than rounding noise."""
        return self.rms <= CONSTANT * self.peak

    @property
    def sqnr_db(self) -> float:
        """Energy of the variation / energy of the error, in dB; infinite without an error."""
        noise, signal = float(self.noise.sum()), float(self.signal.sum())
        if noise == 0:
            return math.inf
        return 10 * math.log10(max(signal, _TINY) / noise) if math.isfinite(noise) else -math.inf


def variation(reference: Array, output: Array) -> Variation:
    """Compare two outputs of equal shape [samples, ...], with at least 2 samples."""
    count, mean = len(reference), mean_sample(reference)
    counts = ~_masked(reference, mean)
    distance, noise = np.empty(count), np.empty(count)
    first, is_frozen = output[0].reshape(-1)[counts], True
    peak, low, high = 0.0, math.inf, -math.inf
    for chosen, (ref, out) in blocks(reference, output):
        if not counts.all():
            ref, out = ref[:, counts], out[:, counts]
        distance[chosen] = np.square(ref - mean[counts]).sum(1)
        noise[chosen] = np.square(ref - out).sum(1)
        peak, low, high = max(peak, float(np.abs(ref).max())), min(low, float(ref.min())), max(high, float(ref.max()))
        is_frozen = is_frozen and bool((out == first).all())
    distance *= count / (count - 1)
    return Variation(
        signal=distance,
        noise=noise,
        peak=peak,
        rms=math.sqrt(float(distance.sum()) / max(1, count * int(counts.sum()))),
        range=high - low,
        is_frozen=is_frozen,
    )


def _masked(reference: Array, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The masked elements, shape [elements]; none if all elements are constant."""
    peaks, squares = np.zeros_like(mean), np.zeros_like(mean)
    for _, (ref,) in blocks(reference):
        np.maximum(peaks, np.abs(ref).max(0), out=peaks)
        squares += np.square(ref - mean).sum(0)
    varies = np.sqrt(squares / len(reference)) > CONSTANT * peaks
    largest = float(peaks[varies].max(initial=0.0)) if varies.any() else math.inf
    return np.asarray(~varies & (peaks > _MASK * max(largest, 1.0)))


def chance_db(samples: int) -> float:
    """By how many dB the variation of few samples may be below the true one; 95 % sure, at least 0.

    The variance of `samples` values has samples - 1 degrees of freedom, so its ratio to the true one follows a
    chi-squared distribution. Elements of an output vary together, so their number is not counted. The quantile is
    Wilson and Hilferty's (Proceedings of the National Academy of Sciences 17, 1931).
    """
    freedom = samples - 1
    if freedom < 1:
        return math.inf
    root = 1 - 2 / (9 * freedom) - _NORMAL * math.sqrt(2 / (9 * freedom))
    return -30 * math.log10(root) if root > 0 else math.inf
