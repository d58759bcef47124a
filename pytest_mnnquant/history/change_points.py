"""Finds the steps in a series of one metric: the begin of a new level, and its significance. Pure; numpy only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.statistics.mann_whitney import mann_whitney
from pytest_mnnquant.statistics.potts import best_cuts

Values = npt.NDArray[np.float64]
#: The smallest reported change of a noisy metric, relative.
EFFECT: Final = 0.02
#: The smallest reported change of a metric that is equal in every run, relative.
EXACT_EFFECT: Final = 0.001
#: asv's level of significance: of 500 comparisons of equal levels, one gives a false step.
SIGNIFICANCE: Final = 0.002
#: With fewer values, two levels can't differ at that significance: 2 of the 1,716 orders of 6 and 7 values do.
FEWEST: Final = 13
#: The required size of a step in standard errors. 2 is too few, since the step was chosen as the largest of all.
_ERRORS: Final = 4.0
#: The number of commits that confirm a level.
_SHORTEST: Final = 2
#: The number of earlier commits that is required to report the last commits as a possible step.
_KNOWN: Final = 5
#: Differences of logarithms up to this are rounding.
_FLOOR: Final = 1e-5
_LONGEST: Final = 1000
#: Degrees of freedom of the noise: timings of processes have heavy tails.
_FREEDOM: Final = 4.0
#: The limit for other possible places of a step: twice the logarithm of the likelihood ratio to the best place. A place
#: is not a smooth parameter: with chi-squared's 3.84 for 95 %, the true place is too rarely among them
#: (benchmarks/history_steps.py).
_DOUBT: Final = 6.0


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level at place `index` of a series; `before` and `after` are the medians of the levels.

    `p` is from the Mann-Whitney rank test; None if the metric does not vary. The step may also be at another place from
    `earliest` to `latest`.
    """

    index: int
    before: float
    after: float
    p: float | None
    earliest: int
    latest: int

    @property
    def change(self) -> float:
        """The relative change: 0.05 is 5 % more than before; infinite if `before` is 0."""
        return _relative(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Found:
    """The steps of a series, and a possible step at its end that too few commits confirm."""

    steps: tuple[Step, ...] = ()
    possible: Step | None = None


def exact_steps(groups: Sequence[Sequence[float]]) -> Found:
    """The steps of a metric that is equal in every run of a commit; each change of 0.1 % or more is a step."""
    levels = [float(np.median(group)) for group in groups]
    steps: list[Step] = []
    level = levels[0] if levels else 0.0
    for index, value in enumerate(levels):
        if abs(_relative(level, value)) >= EXACT_EFFECT:
            steps.append(Step(index, level, value, None, index, index))
            level = value
    return Found(tuple(steps))


def noisy_steps(groups: Sequence[Sequence[float]], effect: float = EFFECT) -> Found:
    """The steps of a metric that varies from run to run; `groups` are the positive values of each commit, in order.

    A step is significant (Mann-Whitney, `SIGNIFICANCE`), large (`effect`, and 4 standard errors of the difference of
    the medians) and confirmed (at least two commits have the new level). Correlated neighbours (a machine that drifts)
    count less: errors grow by (1 + r) / (1 - r), where r is the correlation of neighbours (Bayley and Hammersley 1946).
    Only the last 1,000 commits are used. Raises `ValueError` for values that are not positive.
    """
    skipped = max(0, len(groups) - _LONGEST)
    logs = [np.asarray(group, np.float64) for group in groups[skipped:]]
    if any(not len(group) or not (group > 0).all() for group in logs):
        raise ValueError("every commit requires values, all above 0")
    logs = [np.log(group) for group in logs]
    if len(logs) < 2:
        return Found()
    cuts = list(best_cuts(_medians(logs), _SHORTEST, _FLOOR))
    while cuts:
        cuts = _settled(logs, cuts)
        heights = [_strength(logs, cuts, which, effect) for which in range(len(cuts))]
        weakest = int(np.argmin(heights))
        if heights[weakest] >= 1:
            break
        del cuts[weakest]
    steps = tuple(_shifted(_step(logs, cuts, which), skipped) for which in range(len(cuts)))
    possible = _possible(logs, cuts, effect)
    return Found(steps, None if possible is None else _shifted(possible, skipped))


def _pieces(logs: Sequence[Values], cuts: Sequence[int]) -> list[Sequence[Values]]:
    edges = [0, *cuts, len(logs)]
    return [logs[start:end] for start, end in itertools.pairwise(edges)]


def _medians(groups: Sequence[Values]) -> Values:
    return np.array([np.median(group) for group in groups])


def _level(groups: Sequence[Values]) -> float:
    return float(np.median(np.concatenate(groups)))


def _noise(logs: Sequence[Values], cuts: Sequence[int]) -> tuple[float, float, float]:
    """(standard deviation of commits, of runs, correlation of neighbouring commits), from the pieces' medians.

    Only the part of the correlation above its standard error counts: half of all uncorrelated series show a positive
    one.
    """
    pieces = _pieces(logs, cuts)
    commits = np.concatenate([_medians(piece) - _level(piece) for piece in pieces])
    runs = np.concatenate([np.concatenate(piece) - _level(piece) for piece in pieces])
    spread = max(_robust(commits, len(pieces)), _FLOOR)
    clipped = np.clip(commits, -3 * spread, 3 * spread)
    energy = float(clipped @ clipped)
    like = float(clipped[1:] @ clipped[:-1]) / energy if energy > 0 else 0.0
    like = min(0.8, max(0.0, like - 1 / math.sqrt(len(commits))))
    return spread, max(_robust(runs, len(pieces)), _FLOOR), like


def _robust(residuals: Values, levels: int) -> float:
    """The standard deviation, from the median absolute deviation of a normal distribution; `levels` were fitted."""
    count = len(residuals)
    return 1.4826 * float(np.median(np.abs(residuals))) * math.sqrt(count / max(1, count - levels))


def _strength(logs: Sequence[Values], cuts: Sequence[int], which: int, effect: float) -> float:
    """The strength of a step; 1 or more for a reported one."""
    before, after = _pieces(logs, cuts)[which : which + 2]
    height = abs(_level(after) - _level(before))
    spread, _, like = _noise(logs, cuts)
    error = 1.2533 * spread * math.sqrt((1 + like) / (1 - like) * (1 / len(before) + 1 / len(after)))
    if mann_whitney(np.concatenate(before), np.concatenate(after)) >= SIGNIFICANCE:
        return 0.0
    return min(height / math.log1p(effect), height / (_ERRORS * error))


def _surprise(logs: Sequence[Values], level: float, spread: float) -> Values:
    """Minus the logarithm of each group's likelihood at a level, for Student's noise."""
    return np.array(
        [((_FREEDOM + 1) / 2 * np.log1p(((group - level) / spread) ** 2 / _FREEDOM)).sum() for group in logs]
    )


def _places(logs: Sequence[Values], cuts: Sequence[int], which: int) -> tuple[int, Values]:
    """The first possible place of a cut, and minus the logarithm of the likelihood of each place from there."""
    edges = [0, *cuts, len(logs)]
    start, cut, end = edges[which : which + 3]
    spread = _noise(logs, cuts)[1]
    before = _surprise(logs[start:end], _level(logs[start:cut]), spread)
    after = _surprise(logs[start:end], _level(logs[cut:end]), spread)
    sums = np.concatenate([[0.0], np.cumsum(before)]) + np.concatenate([np.cumsum(after[::-1])[::-1], [0.0]])
    return start + _SHORTEST, sums[_SHORTEST : len(sums) - _SHORTEST]


def _settled(logs: Sequence[Values], cuts: Sequence[int]) -> list[int]:
    """The cuts, moved to their most likely places between their neighbours."""
    moved = list(cuts)
    for which in range(len(moved)):
        first, surprises = _places(logs, moved, which)
        moved[which] = first + int(surprises.argmin())
    return moved


def _step(logs: Sequence[Values], cuts: Sequence[int], which: int) -> Step:
    before, after = _pieces(logs, cuts)[which : which + 2]
    first, surprises = _places(logs, cuts, which)
    near = np.flatnonzero(2 * (surprises - surprises.min()) <= _DOUBT)
    p = mann_whitney(np.concatenate(before), np.concatenate(after))
    levels = math.exp(_level(before)), math.exp(_level(after))
    return Step(cuts[which], *levels, p, first + int(near[0]), first + int(near[-1]))


def _possible(logs: Sequence[Values], cuts: Sequence[int], effect: float) -> Step | None:
    """The last commits as a possible step, if they differ from their piece but are too few to confirm one."""
    piece = _pieces(logs, cuts)[-1]
    off = _medians(piece) - _level(piece)
    reach = max(math.log1p(effect), _ERRORS * _noise(logs[:-1], cuts)[0])
    apart = np.sign(off[-1]) * off >= reach
    new = len(piece) if apart.all() else int(np.argmin(apart[::-1]))
    if not new or len(piece) - new < _KNOWN:
        return None
    known, last = piece[:-new], piece[-new:]
    place = len(logs) - new
    p = mann_whitney(np.concatenate(known), np.concatenate(last))
    return Step(place, math.exp(_level(known)), math.exp(_level(last)), p, place, place)


def _shifted(step: Step, by: int) -> Step:
    return Step(step.index + by, step.before, step.after, step.p, step.earliest + by, step.latest + by)


def _relative(before: float, after: float) -> float:
    if before == after:
        return 0.0
    return (after - before) / abs(before) if before else math.copysign(math.inf, after)
