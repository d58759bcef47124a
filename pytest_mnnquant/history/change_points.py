"""Finds the steps in a series of one figure: where a new level begins, and how sure that is. Pure; numpy only."""

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
#: The smallest change of a noisy figure that is told, relative.
EFFECT: Final = 0.02
#: The smallest change of a figure that is the same in every run, relative.
EXACT_EFFECT: Final = 0.001
#: asv's level of significance: of 500 comparisons of equal levels one is taken for a step.
SIGNIFICANCE: Final = 0.002
#: With fewer values no two levels can differ at that significance: 2 of the 1,716 orders of 6 and 7 values do.
FEWEST: Final = 13
#: How many standard errors a step must have. The place was chosen for its height among all, so 2 would not do.
_ERRORS: Final = 4.0
#: A level that only one commit has is not confirmed.
_SHORTEST: Final = 2
#: Commits that must have come before, for those at the end to be told as possibly another level.
_KNOWN: Final = 5
#: Differences of logarithms that are rounding.
_FLOOR: Final = 1e-5
_LONGEST: Final = 1000
#: Degrees of freedom of the noise: timings of processes have heavy tails.
_FREEDOM: Final = 4.0
#: How much less likely than the best place another may be to be told too: twice the logarithm of the ratio. A place is
#: no smooth parameter: chi-squared's 3.84 for 95 % holds the true one too rarely (benchmarks/history_steps.py).
_DOUBT: Final = 6.0


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level at place `index` of a series; `before` and `after` are the medians of the levels.

    `p` is of the rank test of Mann and Whitney; None where figures do not vary. The step may as well be at another
    place from `earliest` to `latest`.
    """

    index: int
    before: float
    after: float
    p: float | None
    earliest: int
    latest: int

    @property
    def change(self) -> float:
        """Relative: 0.05 is 5 % more than before; infinite from 0."""
        return _relative(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Found:
    """The steps of a series, and a change that only its last commits have, too few to confirm it."""

    steps: tuple[Step, ...] = ()
    possible: Step | None = None


def exact_steps(groups: Sequence[Sequence[float]]) -> Found:
    """The steps of a figure that is the same in every run of a commit; any change of 0.1 % or more is one at once."""
    levels = [float(np.median(group)) for group in groups]
    steps: list[Step] = []
    level = levels[0] if levels else 0.0
    for index, value in enumerate(levels):
        if abs(_relative(level, value)) >= EXACT_EFFECT:
            steps.append(Step(index, level, value, None, index, index))
            level = value
    return Found(tuple(steps))


def noisy_steps(groups: Sequence[Sequence[float]], effect: float = EFFECT) -> Found:
    """The steps of a figure that varies from run to run; `groups` are the positive values of each commit, in order.

    A step is significant (Mann-Whitney, `SIGNIFICANCE`), large (`effect`, and 4 standard errors of the difference of
    the medians) and confirmed: two commits at least have the new level. Values that follow each other and are alike
    (a machine that drifts) count for less: errors grow by (1 + r) / (1 - r), where r is the correlation of
    neighbours (Bayley and Hammersley 1946). Only the last 1,000 commits are looked at. Raises `ValueError` for values
    that are not positive.
    """
    skipped = max(0, len(groups) - _LONGEST)
    logs = [np.asarray(group, np.float64) for group in groups[skipped:]]
    if any(not len(group) or not (group > 0).all() for group in logs):
        raise ValueError("every commit needs values, all above 0")
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

    Of the correlation only what exceeds its own standard error counts: without any, half of the series show some.
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
    """The standard deviation by the median absolute deviation, as wide as for a normal law; `levels` were fitted."""
    count = len(residuals)
    return 1.4826 * float(np.median(np.abs(residuals))) * math.sqrt(count / max(1, count - levels))


def _strength(logs: Sequence[Values], cuts: Sequence[int], which: int, effect: float) -> float:
    """At least 1 for a step that counts."""
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
    """For a cut: the first place that it may have, and for each from there minus the logarithm of its likelihood."""
    edges = [0, *cuts, len(logs)]
    start, cut, end = edges[which : which + 3]
    spread = _noise(logs, cuts)[1]
    before = _surprise(logs[start:end], _level(logs[start:cut]), spread)
    after = _surprise(logs[start:end], _level(logs[cut:end]), spread)
    sums = np.concatenate([[0.0], np.cumsum(before)]) + np.concatenate([np.cumsum(after[::-1])[::-1], [0.0]])
    return start + _SHORTEST, sums[_SHORTEST : len(sums) - _SHORTEST]


def _settled(logs: Sequence[Values], cuts: Sequence[int]) -> list[int]:
    """The cuts at the likeliest places between their neighbours."""
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
    """The last commits as a step, if they stand out of their piece and are too few to be one."""
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
