"""The Potts model: a series as a few constant pieces, as few as its noise allows.

A cut costs a penalty, a piece costs the absolute distances from its median (Friedrich, Kempe, Liebscher and Winkler,
Complexity penalized M-estimation, J. Comput. Graph. Statist. 17, 2008). Distances are absolute, since timings have
heavy tails. The number of pieces k minimizes n ln(cost) + c k ln n, an information criterion for Laplace noise of
unknown width (Yao 1988).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
#: The gain that one more piece requires, in units of ln n: it adds a level and a position.
_PENALTY: Final = 1.5
_MOST_PIECES: Final = 30


def best_cuts(values: Values, shortest: int, floor: float) -> tuple[int, ...]:
    """The starts of all pieces of a series except the first; each piece has at least `shortest` values.

    `floor` is the distance per value below which a cut gains nothing: rounding is not noise to explain.
    """
    count = len(values)
    pieces = min(_MOST_PIECES, count // shortest)
    if pieces < 2:
        return ()
    best: tuple[int, ...] = ()
    least = math.inf
    for number, (total, cuts) in enumerate(_partitions(_costs(values, shortest), pieces), start=1):
        worth = count * math.log(max(total / count, floor)) + _PENALTY * number * math.log(count)
        if worth < least:
            least, best = worth, cuts
    return best


def _costs(values: Values, shortest: int) -> Values:
    """Cost of the piece of values i to j - 1 at [i, j]; infinite if the piece is too short."""
    count = len(values)
    costs = np.full((count, count + 1), np.inf)
    for start in range(count):
        distances = _Distances()
        for end, value in enumerate(values[start:].tolist(), start=start + 1):
            distances.add(value)
            if end - start >= shortest:
                costs[start, end] = distances.total
    return costs


class _Distances:
    """The sum of the absolute distances of values from their median, as values are added: two heaps and their sums."""

    def __init__(self) -> None:
        self._low: list[float] = []  # negated: its largest is on top
        self._high: list[float] = []
        self._below = self._above = 0.0

    def add(self, value: float) -> None:
        """Add a value."""
        top = -heapq.heappushpop(self._low, -value)
        self._below += value - top
        heapq.heappush(self._high, top)
        self._above += top
        if len(self._high) > len(self._low):
            least = heapq.heappop(self._high)
            self._above -= least
            heapq.heappush(self._low, -least)
            self._below += least

    @property
    def total(self) -> float:
        """The sum, in the unit of the values."""
        odd = -self._low[0] if len(self._low) > len(self._high) else 0.0
        return max(0.0, self._above - self._below + odd)


def _partitions(costs: Values, pieces: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """The least cost, and its cuts, of one piece, two pieces, ... by dynamic programming."""
    count = len(costs)
    totals = costs[0]
    starts: list[npt.NDArray[np.int64]] = []
    for _ in range(pieces):
        cuts, end = [], count
        for places in reversed(starts):
            end = int(places[end])
            cuts.append(end)
        yield float(totals[count]), tuple(reversed(cuts))
        candidates = totals[:count, None] + costs
        starts.append(candidates.argmin(axis=0))
        totals = candidates.min(axis=0)
        if not math.isfinite(totals[count]):
            return
