"""Confidence intervals from samples: for shares, means, ratios and any statistic.

`confidence` is two-sided: at 0.95 either bound misses the truth in 2.5 % of all sets of samples. The same samples give
the same bounds.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
_FEWEST: Final = 20
_GROUPS: Final = 50
# Steps of the search for a bound: halvings until it is found; doublings until it counts as infinite.
_HALVINGS, _ROUGH_HALVINGS, _DOUBLINGS = 40, 20, 60
_ROUNDING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its bounds. `low` and `high` have the unit of the value and may be infinite.

    `spread`: standard deviation of the contribution of one sample; the standard error is spread / sqrt(samples).
    """

    value: float
    low: float
    high: float
    samples: int
    spread: float


# Yes or no, for each sample ------------------------------------------------------------------------------------------


def share(hits: int, samples: int, confidence: float = 0.95) -> Estimate:
    """The share of samples that are hits, in [0, 1]. Raises `ValueError` for impossible counts.

    The interval is Wilson's (Journal of the American Statistical Association 22, 1927).
    """
    _counts(hits, samples, samples - hits)
    value, z = hits / samples, _normal(confidence)
    centre = (hits + z * z / 2) / (samples + z * z)
    reach = z / (samples + z * z) * math.sqrt(hits * (samples - hits) / samples + z * z / 4)
    low, high = max(0.0, min(centre - reach, value)), min(1.0, max(centre + reach, value))
    return Estimate(value, low, high, samples, math.sqrt(value * (1 - value)))


def paired_drop(lost: int, won: int, samples: int, confidence: float = 0.95) -> Estimate:
    """By how much a share drops between two models on the same samples, in [-1, 1].

    `lost` were right before and are wrong after, `won` the reverse. The interval is Tango's score interval (Statistics
    in Medicine 17, 1998). Raises `ValueError` for impossible counts.
    """
    _counts(lost, won, samples, samples - lost - won)
    value, z = (lost - won) / samples, _normal(confidence)
    low, high = -_highest_drop(won, lost, samples, z), _highest_drop(lost, won, samples, z)
    spread = math.sqrt(max(0.0, (lost + won) / samples - value * value))
    return Estimate(value, low, high, samples, spread)


def _highest_drop(lost: int, won: int, samples: int, z: float) -> float:
    """The drop that is `z` standard errors above the observed one; its variance is the likeliest with that drop."""
    value = (lost - won) / samples
    low, high = value, 1.0
    for _ in range(_HALVINGS):
        drop = (low + high) / 2
        within = samples * (drop - value) < z * math.sqrt(_drop_variance(lost, won, samples, drop))
        low, high = (drop, high) if within else (low, drop)
    return high


def _drop_variance(lost: int, won: int, samples: int, drop: float) -> float:
    """The variance of lost - won for this drop: Tango's equation for the likeliest share that is won."""
    if drop < 0:
        return _drop_variance(won, lost, samples, -drop)
    b = (2 * samples - lost + won) * drop - lost - won
    c = won * drop * (1 - drop)
    root = math.sqrt(b * b + 8 * samples * c)
    share_won = (root - b) / (4 * samples) if b <= 0 else 2 * c / (b + root)
    return samples * (2 * share_won + drop * (1 - drop))


def mcnemar(lost: int, won: int) -> float:
    """The p value of no drop, in [0, 1]: McNemar's test, exact and two-sided. See `paired_drop`."""
    _counts(lost, won, 1)
    if lost == won:
        return 1.0
    total, steps = lost + won, np.arange(min(lost, won))
    logs = np.cumsum(np.log(np.concatenate([[1.0], (total - steps) / (steps + 1)]))) - total * math.log(2)
    return min(1.0, 2 * float(np.exp(logs - logs.max()).sum()) * math.exp(logs.max()))


def samples_to_decide(spread: float, margin: float) -> int:
    """How many samples distinguish a change of `margin` from none, one-sided at 95 %, rounded.

    `spread` is that of an `Estimate`, in the unit of the margin. Raises `ValueError` unless the margin is above 0.
    """
    if not margin > 0:
        raise ValueError(f"a margin of {margin:g} can't be distinguished from none")
    return max(1, round((1.645 * spread / margin) ** 2))


def _counts(*counts: int) -> None:
    if min(counts) < 0 or max(counts) < 1:
        raise ValueError(f"impossible counts of samples: {counts}")


# Numbers, one for each sample ----------------------------------------------------------------------------------------


def mean(values: Array, confidence: float = 0.95) -> Estimate:
    """The mean of one number per sample, shape [samples]. For equal values, or a single one: low = high = value.

    Student's t, corrected for skewness (see `_bounds`). Raises `ValueError` without numbers, and for NaN or infinity.
    """
    values = _numbers(values)
    if values.min() == values.max():
        return _certain(float(values[0]), len(values))
    value, spread, skews = _moments(values)
    low, high = _bounds(value, spread / math.sqrt(len(values)), skews, _student(confidence, len(values) - 1))
    return Estimate(value, low, high, len(values), spread)


def ratio(after: Array, before: Array, confidence: float = 0.95) -> Estimate:
    """sum(after) / sum(before) of the same samples; both have shape [samples].

    A ratio is between the bounds if 0 is between those of the mean of after - ratio * before (Fieller, Journal of the
    Royal Statistical Society B 16, 1954). A bound is infinite if `before` itself can't be distinguished from 0. Raises
    `ValueError` if sum(before) is 0, and in the cases of `mean`.
    """
    after, before = _numbers(after), _numbers(before)
    if len(after) != len(before):
        raise ValueError(f"different numbers of samples: {len(after)} and {len(before)}")
    if (total := float(before.sum())) == 0:
        raise ValueError("a ratio to 0")
    value, root = float(after.sum()) / total, math.sqrt(len(after))
    left = after - value * before
    if len(left) < 2 or np.ptp(left) <= _ROUNDING * np.abs(after).max():
        return _certain(value, len(left))
    t, step = _student(confidence, len(left) - 1), float(left.std(ddof=1)) / abs(total) * root

    def holds(guess: float) -> bool:
        middle, spread, skews = _moments(after - guess * before)
        low, high = _bounds(middle, spread / root, skews, t)
        return low <= 0 <= high

    return Estimate(value, _edge(holds, value, -step), _edge(holds, value, step), len(left), step * root)


def _edge(holds: Callable[[float], bool], start: float, step: float) -> float:
    """The last value from `start` in the direction of `step` for which `holds` is true; infinite if it has no end."""
    inner = outer = start
    for _ in range(_DOUBLINGS):
        inner, outer, step = outer, start + step, 2 * step
        if not holds(outer):
            break
    else:
        return math.copysign(math.inf, step)
    for _ in range(_ROUGH_HALVINGS):
        middle = (inner + outer) / 2
        inner, outer = (middle, outer) if holds(middle) else (inner, middle)
    return outer


# Any statistic -------------------------------------------------------------------------------------------------------


def resampled(
    statistic: Callable[[Indices], float],
    samples: int,
    *,
    confidence: float = 0.95,
    draws: int = 400,
    budget_seconds: float = 10.0,
) -> Estimate:
    """A statistic of a set of samples, given as a function of their indices, which may repeat.

    It is computed without each of up to 50 groups of samples, then on up to `draws` bootstrap sets, within the budget.
    The groups give the skewness. The variance is the mean of both variances: the jackknife's is too large (Efron and
    Stein, Annals of Statistics 9, 1981), the bootstrap's too small if few samples matter. The bounds are infinite if
    the statistic is not finite on one of the sets. Raises `ValueError` below 20 sets.
    """
    _counts(samples)
    deadline = time.monotonic() + budget_seconds
    random = np.random.default_rng(0)
    value = float(statistic(np.arange(samples)))
    lefts = _until(deadline, statistic, _left_out(random, samples))
    drawn = _until(deadline, statistic, (random.integers(0, samples, samples) for _ in range(draws)))
    if len(lefts) + len(drawn) < _FEWEST:
        raise ValueError(f"{len(lefts) + len(drawn)} sets of samples in {budget_seconds:g} s, required {_FEWEST}")
    error = _error(lefts, drawn, samples)
    if not (math.isfinite(value) and math.isfinite(error)):
        return Estimate(value, -math.inf, math.inf, samples, math.inf)
    if error <= _ROUNDING * abs(value):
        return _certain(value, samples)
    skews = _moments(-lefts)[2] if len(lefts) > 1 else (0.0, 0.0)
    low, high = _bounds(value, error, skews, _student(confidence, max(1, samples - 1)))
    return Estimate(value, low, high, samples, error * math.sqrt(samples))


def _error(lefts: Array, drawn: Array, samples: int) -> float:
    """The standard error of a statistic, from its values without a group and on bootstrap sets."""
    groups = min(samples, _GROUPS)
    with np.errstate(over="ignore", invalid="ignore"):
        variances = [(groups - 1) ** 2 / groups * float(lefts.var(ddof=1))] if len(lefts) > 1 else []
        if len(drawn) >= _FEWEST:
            variances.append(samples / max(samples - 1, 1) * float(drawn.var(ddof=1)))
    return math.sqrt(sum(variances) / len(variances))


def _left_out(random: np.random.Generator, samples: int) -> Iterator[Indices]:
    """All samples except a group's, for each group. Groups are random, since sets are often sorted by class."""
    group = random.permutation(samples) % _GROUPS
    return (np.flatnonzero(group != number) for number in range(min(samples, _GROUPS)) if samples > 1)


def _until(deadline: float, statistic: Callable[[Indices], float], sets: Iterator[Indices]) -> Array:
    in_time = itertools.takewhile(lambda _: time.monotonic() < deadline, sets)
    return np.array([statistic(chosen) for chosen in in_time], np.float64)


# Bounds --------------------------------------------------------------------------------------------------------------


def _bounds(value: float, error: float, skews: tuple[float, float], t: float) -> tuple[float, float]:
    """Bounds of a mean with this standard error, corrected for its skewness; `skews` as `_moments` gives them.

    Student's t is skewed by Hall's cubic (Journal of the Royal Statistical Society B 54, 1992). The bound on the side
    of the long tail moves out by all of the measured skewness. The other bound moves in only by the skewness that is
    certain: a few large values of either sign look like skewness too.
    """
    below, above = skews if skews[0] < 0 else skews[::-1]
    return value - error * max(0.0, _skewed(t, below)), value - error * min(0.0, _skewed(-t, above))


def _skewed(t: float, skew: float) -> float:
    """The inverse of Hall's cubic; `skew` is that of the mean."""
    if abs(skew) < _ROUNDING:
        return t
    return 3 / skew * (float(np.cbrt(1 + skew * (t - skew / 6))) - 1)


def _moments(values: Array) -> tuple[float, float, tuple[float, float]]:
    """Mean and standard deviation; the skewness of the mean, and its part beyond three standard errors.

    The standard error is that of the skewness's influence function.
    """
    count, value = len(values), float(values.mean())
    u = values - value
    if (largest := float(np.abs(u).max())) == 0:
        return value, 0.0, (0.0, 0.0)
    u /= largest
    u /= (scale := math.sqrt(u @ u / count))
    squares = u * u
    cubes = squares * u
    skew = float(cubes.mean())
    influence = cubes - 3 * u - 1.5 * skew * squares
    influence -= influence.mean()
    sure = math.copysign(max(0.0, abs(skew) - 3 * math.sqrt(influence @ influence) / count), skew)
    spread, root = largest * scale * math.sqrt(count / (count - 1)), math.sqrt(count)
    return value, spread, (skew / root, sure / root)


def _student(confidence: float, freedom: int) -> float:
    """Student's t (Abramowitz and Stegun, 26.7.5): at 0.95 it is 11 % too small for 1 degree of freedom, 1 % for 2."""
    z = _normal(confidence)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + float(sum(term / freedom**power for power, term in enumerate(terms, 1)))


def _normal(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _numbers(values: Array) -> npt.NDArray[np.float64]:
    numbers = np.asarray(values, np.float64)
    if numbers.size == 0 or not np.isfinite(numbers).all():
        raise ValueError("no numbers" if numbers.size == 0 else "a number is NaN or infinite")
    return numbers


def _certain(value: float, samples: int) -> Estimate:
    return Estimate(value, value, value, samples, 0.0)
