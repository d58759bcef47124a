"""Whether intervals hold as often as they say: coverage by simulation, and by enumeration where counts are few.

    python benchmarks/intervals.py [--confidence C] [--draws N] [--rivals]

For each kind of figure, sets of 50, 500 and 5,000 samples are drawn from a law whose true value is known, each row
with seed 0, and the intervals that hold it are counted. Of 2,000 draws a coverage of 95 % has a standard error of 0.5
points: of rows that hold at 95 % exactly, one in 25 is seen outside of 94 % to 96 %. The gate uses 0.90, so that
each bound misses in 5 %. `--rivals` shows what other intervals of a mean do instead.

What the laws are like: 1 - cosine of the fixture models' int8 and 4-bit outputs has a logarithm with a standard
deviation of 0.6 to 1.1; in `tiny_transformer`'s int8 the worst hundredth of the samples has two fifths of the error.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.statistics.intervals import Estimate, _student, mean, paired_drop, ratio, resampled, share

SAMPLES: Final = (50, 500, 5_000)
CLASSES: Final = 8
#: Largest number of samples for which the coverage of counts is enumerated.
_ENUMERATED: Final = 500
_NEVER, _ROUNDING = 1e-12, 1e-12
#: Draws of a statistic that is computed 450 times for one interval: fewer, to be done in time.
_SLOW: Final = {500: 1_000, 5_000: 300}
Array = npt.NDArray[Any]
Random = np.random.Generator
Interval = Callable[[Any, float], Estimate]
#: [(probability, counts)]
Outcomes = Callable[[int], Iterator[tuple[float, tuple[int, ...]]]]


@dataclass(frozen=True)
class Law:
    """A set of samples as `draw` makes it, the interval of a figure of it, and what that figure truly is."""

    name: str
    draw: Callable[[Random, int], Any]
    interval: Interval
    true: float
    outcomes: Outcomes | None = None
    is_slow: bool = False


# Counts --------------------------------------------------------------------------------------------------------------


def of_share(true: float) -> Law:
    """Agreement of this size."""
    return _of_counts(f"share {true:.0%}", share, (true, 1 - true), true)


def of_drop(disagreement: float, drop: float) -> Law:
    """A drop, with this share of samples that only one of the two models gets right."""
    shares = ((disagreement + drop) / 2, (disagreement - drop) / 2, 1 - disagreement)
    return _of_counts(f"paired_drop {disagreement:.0%} differ, drop {drop:.0%}", paired_drop, shares, drop)


def _of_counts(name: str, interval: Callable[..., Estimate], shares: tuple[float, ...], true: float) -> Law:
    """Samples that each are of one kind, with these probabilities; the interval takes all counts but the last."""
    cached = functools.cache(interval)

    def outcomes(samples: int) -> Iterator[tuple[float, tuple[int, ...]]]:
        for counts in itertools.product(range(samples + 1), repeat=len(shares) - 1):
            if (rest := samples - sum(counts)) >= 0:
                yield _multinomial(samples, (*counts, rest), shares), (*counts, samples)

    def draw(random: Random, samples: int) -> tuple[int, ...]:
        return (*random.multinomial(samples, shares).tolist()[:-1], samples)

    return Law(name, draw, lambda counts, confidence: cached(*counts, confidence), true, outcomes)


def _multinomial(samples: int, counts: tuple[int, ...], shares: tuple[float, ...]) -> float:
    logs = (count * math.log(one) - math.lgamma(count + 1) for count, one in zip(counts, shares, strict=True))
    return math.exp(math.lgamma(samples + 1) + sum(logs))


# Numbers -------------------------------------------------------------------------------------------------------------


def of_cosine(deviation: float) -> Law:
    """Mean cosine, where log(1 - cosine) is normal with this standard deviation."""
    size = 0.002
    draw = lambda random, samples: 1 - size * random.lognormal(0, deviation, samples)  # noqa: E731
    return Law(f"mean, cosine (deviation {deviation:g})", draw, mean, 1 - size * math.exp(deviation**2 / 2))


def of_rare() -> Law:
    """Mean cosine, where one sample of a hundred is 50 times as far off."""

    def draw(random: Random, samples: int) -> Array:
        return 1 - 1e-4 * random.lognormal(0, 0.5, samples) * np.where(random.random(samples) < 0.01, 50, 1)

    return Law("mean, cosine, 1 % of samples far off", draw, mean, 1 - 1e-4 * math.exp(0.125) * (0.99 + 0.5))


def of_difference() -> Law:
    """Mean drop of a score in [0, 1], where the variant keeps a part of each sample's."""

    def draw(random: Random, samples: int) -> Array:
        before = random.beta(8, 2, samples)
        return before - before * random.beta(30, 1.5, samples)

    return Law("mean, drop of a bounded score", draw, mean, 0.8 * (1 - 30 / 31.5))


def of_heavy() -> Law:
    """Mean drop of a probability that changes in 3 of 10 samples, either way, with long tails."""
    draw = lambda random, samples: random.laplace(0, 0.05, samples) * (random.random(samples) < 0.3)  # noqa: E731
    return Law("mean, rare changes either way", draw, mean, 0.0)


def of_scores() -> Law:
    """What is left of a score in [0, 1]."""

    def draw(random: Random, samples: int) -> tuple[Array, Array]:
        before = random.beta(6, 2, samples)
        return before * random.beta(20, 1, samples), before

    return Law("ratio, bounded scores", draw, _ratio, 20 / 21)


def of_errors(deviation: float, change: float) -> Law:
    """By how much an error grows: log-normal, as its change is, with these standard deviations."""

    def draw(random: Random, samples: int) -> tuple[Array, Array]:
        before = random.lognormal(0, deviation, samples)
        return before * 1.05 * random.lognormal(0, change, samples), before

    true = 1.05 * math.exp(change**2 / 2)
    return Law(f"ratio, errors (deviations {deviation:g}, {change:g})", draw, _ratio, true)


def _ratio(pair: tuple[Array, Array], confidence: float) -> Estimate:
    return ratio(*pair, confidence)


# Statistics of sums over samples -------------------------------------------------------------------------------------


def of_overlap() -> Law:
    """Drop of the mean IoU of 8 classes, the rarest of them in one of seven samples."""
    there = np.linspace(1, 1 / 7, CLASSES)

    def draw(random: Random, samples: int) -> Array:
        union = random.gamma(2, 50, (samples, CLASSES)) * (random.random((samples, CLASSES)) < there)
        before = union * random.beta(8, 2, union.shape)
        return np.concatenate([union, before, before * random.beta(30, 1.5, union.shape)], axis=1)

    def figure(sums: Array) -> float:
        union, before, after = sums.reshape(3, CLASSES)
        return float(((before - after) / np.maximum(union, 1e-9)).sum() / np.count_nonzero(union))

    return Law("resampled, drop of mean IoU", draw, _of_sums(figure), 0.8 * (1 - 30 / 31.5), is_slow=True)


def of_root() -> Law:
    """Rise of a root mean square error."""

    def draw(random: Random, samples: int) -> Array:
        before = random.lognormal(0, 0.4, samples)
        after = before * random.lognormal(0.05, 0.2, samples)
        return np.stack([before**2, after**2, np.ones(samples)], axis=1)

    def figure(sums: Array) -> float:
        return math.sqrt(sums[1] / sums[2]) - math.sqrt(sums[0] / sums[2])

    return Law("resampled, rise of RMSE", draw, _of_sums(figure), math.exp(0.16) * (math.exp(0.09) - 1), is_slow=True)


def of_noise() -> Law:
    """SQNR in dB."""

    def draw(random: Random, samples: int) -> Array:
        signal = random.gamma(4, 1, samples)
        return np.stack([signal, 0.01 * signal * random.lognormal(0, 0.6, samples)], axis=1)

    true = 20 - 10 * 0.18 / math.log(10)
    return Law("resampled, SQNR", draw, _of_sums(lambda sums: 10 * math.log10(sums[0] / sums[1])), true, is_slow=True)


def _of_sums(figure: Callable[[Array], float]) -> Interval:
    def interval(parts: Array, confidence: float) -> Estimate:
        statistic = lambda chosen: figure(np.bincount(chosen, minlength=len(parts)) @ parts)  # noqa: E731
        return resampled(statistic, len(parts), confidence=confidence, budget_seconds=math.inf)

    return interval


LAWS: Final = (
    *(of_share(0.9), of_share(0.98)),
    *(of_drop(0.02, 0.0), of_drop(0.05, 0.01), of_drop(0.1, 0.02), of_drop(0.2, 0.05)),
    *(of_cosine(0.5), of_cosine(0.75), of_cosine(1.0), of_rare(), of_difference(), of_heavy()),
    *(of_scores(), of_errors(0.5, 0.2), of_errors(0.8, 0.3)),
    *(of_overlap(), of_root(), of_noise()),
)


# Rivals --------------------------------------------------------------------------------------------------------------


def plain_t(values: Array, confidence: float) -> Estimate:
    """Student's t."""
    value, spread = float(values.mean()), float(values.std(ddof=1))
    reach = _student(confidence, len(values) - 1) * spread / math.sqrt(len(values))
    return Estimate(value, value - reach, value + reach, len(values), spread)


def bootstrap_t(values: Array, confidence: float) -> Estimate:
    """Bootstrap-t of 500 draws (Efron 1979); a set of equal values is infinitely far off."""
    means, errors = _sets(values)
    value, tail = float(values.mean()), (1 - confidence) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num((means - value) / errors, nan=0.0)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    low, high = np.quantile(ratios, (tail, 1 - tail), method="inverted_cdf")
    return Estimate(value, value - float(high) * error, value - float(low) * error, len(values), error)


def accelerated(values: Array, confidence: float) -> Estimate:
    """BCa of 500 draws (Efron 1987)."""
    means, _ = _sets(values)
    value, normal = float(values.mean()), NormalDist()
    left = values - value
    bend = float((left**3).sum()) / (6 * float(np.square(left).sum()) ** 1.5)
    bias = normal.inv_cdf(min(max(float((means < value).mean()), 0.01), 0.99))
    points = [bias + normal.inv_cdf(tail) for tail in ((1 - confidence) / 2, (1 + confidence) / 2)]
    low, high = np.quantile(means, [normal.cdf(bias + point / (1 - bend * point)) for point in points])
    return Estimate(value, float(low), float(high), len(values), 0.0)


def _sets(values: Array) -> tuple[Array, Array]:
    drawn = values[np.random.default_rng(0).integers(0, len(values), (500, len(values)))]
    return drawn.mean(1), drawn.std(1, ddof=1) / math.sqrt(len(values))


def rivals() -> Iterator[Law]:
    """The laws of means, with other intervals."""
    for law, interval in itertools.product(LAWS, (plain_t, accelerated, bootstrap_t)):
        if law.interval is mean:
            yield Law(f"{interval.__name__}: {law.name}", law.draw, interval, law.true)


# The table -----------------------------------------------------------------------------------------------------------


def simulated(law: Law, samples: int, draws: int, confidence: float) -> tuple[float, float]:
    """In what share of draws the truth is below the interval, and above it."""
    random, below, above = np.random.default_rng(0), 0, 0
    for _ in range(draws):
        found = law.interval(law.draw(random, samples), confidence)
        below += law.true < found.low - _ROUNDING
        above += law.true > found.high + _ROUNDING
    return below / draws, above / draws


def enumerated(law: Law, samples: int, confidence: float) -> float | None:
    """The coverage over all outcomes; None where they are numbers, or too many."""
    if law.outcomes is None or samples > _ENUMERATED:
        return None
    covered = 0.0
    for chance, counts in law.outcomes(samples):
        if chance > _NEVER:
            found = law.interval(counts, confidence)
            covered += chance * (found.low - _ROUNDING <= law.true <= found.high + _ROUNDING)
    return covered


def rows(law: Law, draws: int, confidence: float, sizes: tuple[int, ...]) -> Iterator[str]:
    """The table's rows of a law. Discrete: the exact coverage is off too, since counts are whole numbers."""
    for samples in sizes:
        made = min(draws, _SLOW.get(samples, draws)) if law.is_slow else draws
        below, above = simulated(law, samples, made, confidence)
        exact = enumerated(law, samples, confidence)
        holds = abs(1 - below - above - confidence) <= 0.01 + _ROUNDING
        is_discrete = exact is not None and abs(exact - confidence) > 0.01
        verdict = "yes" if holds else "no (discrete)" if is_discrete else "no"
        cells = (law.name, f"{samples:,}", f"{made:,}", f"{1 - below - above:.1%}", f"{below:.1%}", f"{above:.1%}")
        yield "| " + " | ".join((*cells, "" if exact is None else f"{exact:.2%}", verdict)) + " |"


def main() -> None:
    """Print the table, each row as soon as it exists."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--draws", type=int, default=2_000)
    parser.add_argument("--rivals", action="store_true")
    options = parser.parse_args()
    start, level = time.process_time(), options.confidence
    error = math.sqrt(level * (1 - level) / options.draws)
    print(f"Intervals of {level:.0%}; seed 0; the standard error of {options.draws:,} draws is {error:.1%}.\n")
    print("| interval | samples | draws | holds | truth below | truth above | exact | ", end="")
    print(f"{level - 0.01:.0%} to {level + 0.01:.0%} |\n" + "|---" * 8 + "|")
    for law in rivals() if options.rivals else LAWS:
        for row in rows(law, options.draws, level, SAMPLES[:2] if options.rivals else SAMPLES):
            print(row, flush=True)
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
