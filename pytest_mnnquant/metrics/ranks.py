"""The order of scores: Spearman's rank correlation of two outputs of one number per sample."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: Nine of ten errors are below this share of the reference's median distance from its median.
_SMALL_ERROR: Final = 0.25
#: At most this share of the samples may have an error above that share of their own distance from the median.
_MOST_LARGE: Final = 0.05
_FEWEST: Final = 30


def rank_correlation(reference: Array, output: Array) -> float | None:
    """Spearman's correlation of two arrays [samples], in [-1, 1]; equal values share their mean rank.

    None if few samples, a constant, or large errors make the order say little: of more than a tenth of the samples, or
    of the largest and smallest values, which a scale that is too small cuts off.
    """
    first, second = reference.astype(np.float64), output.astype(np.float64)
    spread = float(np.median(np.abs(first - np.median(first))))
    errors = np.abs(first - second)
    if len(first) < _FEWEST or np.quantile(errors, 0.9) > _SMALL_ERROR * spread:
        return None
    if (errors > _SMALL_ERROR * np.maximum(spread, np.abs(first - np.median(first)))).mean() > _MOST_LARGE:
        return None
    ranks = [_ranks(values) for values in (first, second)]
    return float(np.atleast_2d(np.corrcoef(ranks))[0, 1]) if all(rank.std() > 0 for rank in ranks) else None


def _ranks(values: Floats) -> Floats:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], np.float64)
