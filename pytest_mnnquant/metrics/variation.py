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
    ref, out = (array.reshape(len(array), -1).astype(np.float64) for array in (reference, output))
    count = len(ref)
    counts = ~_masked(ref)
    ref, out = ref[:, counts], out[:, counts]
    distance = np.square(_about_mean(ref)).sum(1) * (count / (count - 1))
    return Variation(
        signal=distance,
        noise=np.square(ref - out).sum(1),
        peak=float(np.abs(ref).max()),
        rms=math.sqrt(float(distance.sum()) / max(1, ref.size)),
        range=float(ref.max() - ref.min()),
        is_frozen=bool((out == out[:1]).all()),
    )


def _about_mean(values: Array) -> Array:
    """The difference from the mean sample, exactly 0 for a constant: the mean of large numbers is rounded."""
    shifted = values - values[:1]
    return np.asarray(shifted - shifted.mean(0))


def _masked(ref: Array) -> npt.NDArray[np.bool_]:
    """The masked elements of [samples, elements]; none if all elements are constant."""
    peaks = np.abs(ref).max(0)
    varies = _about_mean(ref).std(0) > CONSTANT * peaks
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
