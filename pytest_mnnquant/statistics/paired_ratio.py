"""The ratio of two timings measured in pairs, with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

#: A 95 % interval needs at least this many pairs.
FEWEST: Final = 6
#: A judgment needs at least this many pairs.
FEWEST_TO_JUDGE: Final = 30


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """Median of candidate / reference over pairs, with a 95 % confidence interval. Below 1: the candidate is faster."""

    median: float
    low: float
    high: float
    pairs: int


def paired_ratio(reference: npt.NDArray[np.float64], candidate: npt.NDArray[np.float64]) -> PairedRatio:
    """Median of paired ratios; both arrays have shape [pairs], in the same unit of time.

    The interval is the distribution-free one from order statistics: ranks n/2 -+ 0.98 sqrt(n) (normal approximation
    of the binomial; Conover, Practical Nonparametric Statistics, 3.2). Raises `ValueError` below 6 pairs, for which no
    95 % interval exists.
    """
    ratios = np.sort(candidate / reference)
    count = len(ratios)
    if count < FEWEST:
        raise ValueError(f"{count} pairs, required {FEWEST}")
    reach = 0.98 * math.sqrt(count)
    low, high = max(0, math.floor(count / 2 - reach)), min(count - 1, math.ceil(count / 2 + reach))
    return PairedRatio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]), count)
