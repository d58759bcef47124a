"""The rank test of Mann and Whitney: whether two sets of values have the same distribution."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
#: A double counts exactly up to this number.
_COUNTED: Final = 2.0**53


def mann_whitney(first: Values, second: Values) -> float:
    """The two-sided p-value of the hypothesis that both sets have the same distribution; 1.0 if a set is empty.

    Exact for few values: the number of ways to get a U is a coefficient of the Gaussian binomial (Mann and Whitney
    1947). For many, the normal approximation with its correction for ties and for continuity.
    """
    first_count, second_count = len(first), len(second)
    if not first_count or not second_count:
        return 1.0
    both = np.concatenate([first, second])
    ranks, ties = _ranks(both)
    above = float(ranks[:first_count].sum()) - first_count * (first_count + 1) / 2
    low = min(above, first_count * second_count - above)
    if math.comb(first_count + second_count, first_count) < _COUNTED:
        ways = _ways(min(first_count, second_count), max(first_count, second_count))
        return min(1.0, 2 * float(ways[: math.floor(low) + 1].sum() / ways.sum()))
    total = first_count + second_count
    spread = first_count * second_count / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    if spread <= 0:
        return 1.0
    return min(1.0, math.erfc(max(0.0, first_count * second_count / 2 - low - 0.5) / math.sqrt(2 * spread)))


def _ranks(values: Values) -> tuple[Values, npt.NDArray[np.int64]]:
    """Ranks from 1, with the mean rank for equal values, and the size of each group of equal values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse], counts.astype(np.int64)


def _ways(few: int, many: int) -> Values:
    """How many of the orders of `few` and `many` values have U = 0, 1, ..., few * many.

    The coefficients of the product of (1 - q^(many + i)) / (1 - q^i) for i = 1 ... few.
    """
    ways = np.zeros(few * many + 1)
    ways[0] = 1
    for i in range(1, few + 1):
        if many + i < len(ways):
            ways[many + i :] -= ways[: -(many + i)].copy()
        for start in range(min(i, len(ways))):
            ways[start::i] = np.cumsum(ways[start::i])
    return ways
