"""Intervals: published values where there are some, what they must obey, and how often they hold."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.statistics.intervals import (
    Estimate,
    mcnemar,
    mean,
    paired_drop,
    ratio,
    resampled,
    samples_to_decide,
    share,
)

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200)).filter(lambda c: sum(c) > 0)
RANDOM = np.random.default_rng(0)


def test_wilsons_interval_is_the_known_one() -> None:
    """8 of 10: 0.490 to 0.943 (Brown, Cai and DasGupta, Statistical Science 16, 2001)."""
    found = share(8, 10)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)


@pytest.mark.parametrize(("lost", "won", "samples"), [(14, 1, 50), (1, 1, 50), (6, 0, 30), (300, 280, 5000)])
def test_tangos_interval_inverts_his_score_test(lost: int, won: int, samples: int) -> None:
    """At each bound the score statistic is 1.96 (Tango, Statistics in Medicine 17, 1998, equations 10 to 13)."""
    found = paired_drop(lost, won, samples)

    def statistic(drop: float) -> float:
        a = 2 * samples
        b = -lost - won + (2 * samples - lost + won) * drop
        c = -won * drop * (1 - drop)
        q = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)
        return (lost - won - samples * drop) / math.sqrt(samples * (2 * q + drop * (1 - drop)))

    assert statistic(found.low) == pytest.approx(1.96, abs=1e-3)
    assert statistic(found.high) == pytest.approx(-1.96, abs=1e-3)


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (5, 0, 2 / 32), (10, 0, 2 / 1024), (8, 1, 2 * 10 / 512), (3, 2, 1.0)],
)
def test_mcnemars_test_is_the_sign_test_of_the_flips(lost: int, won: int, p: float) -> None:
    assert mcnemar(lost, won) == pytest.approx(p)
    assert mcnemar(won, lost) == pytest.approx(p)


def test_of_many_flips_the_p_value_is_still_a_number() -> None:
    assert mcnemar(50_500, 49_500) == pytest.approx(0.00157, abs=1e-4)
    assert 0 <= mcnemar(40_000, 10) < 1e-100


def test_the_number_of_samples_is_the_usual_formula() -> None:
    """541, 1,353 and 2,706 for a drop of a point, where 2, 5 and 10 % of the answers change."""
    assert [samples_to_decide(math.sqrt(changed), 0.01) for changed in (0.02, 0.05, 0.1)] == [541, 1353, 2706]
    with pytest.raises(ValueError, match="a margin of 0"):
        samples_to_decide(1.0, 0.0)


def ordered(found: Estimate) -> bool:
    return found.low <= found.value <= found.high


@given(COUNTS)
def test_a_figure_lies_between_its_bounds_and_mirrors(counts: tuple[int, int, int]) -> None:
    lost, won, same = counts
    samples = lost + won + same
    found, mirrored = paired_drop(lost, won, samples), paired_drop(won, lost, samples)
    assert ordered(found)
    assert found.low == pytest.approx(-mirrored.high)
    assert found.high == pytest.approx(-mirrored.low)
    assert -1 <= found.low <= found.high <= 1
    assert ordered(share(lost, samples))
    wider = paired_drop(lost, won, samples, 0.99)
    assert wider.low <= found.low <= found.high <= wider.high


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=60))
def test_a_mean_lies_between_its_bounds(values: list[float]) -> None:
    found = mean(np.array(values))
    assert ordered(found)
    assert found.samples == len(values)


def test_what_is_the_same_in_all_samples_is_certain() -> None:
    assert mean(np.full(20, 0.7)) == Estimate(0.7, 0.7, 0.7, 20, 0.0)
    assert mean(np.array([3.0])) == Estimate(3.0, 3.0, 3.0, 1, 0.0)
    assert ratio(2 * np.arange(1.0, 9), np.arange(1.0, 9)).low == 2
    found = resampled(lambda chosen: 5.0, 30)
    assert (found.low, found.high) == (5, 5)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_what_is_no_number_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="number"):
        mean(np.array(values))


def test_a_ratio_to_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="a ratio to 0"):
        ratio(np.ones(5), np.array([1.0, -1.0, 1.0, -1.0, 0.0]))
    with pytest.raises(ValueError, match="different numbers of samples"):
        ratio(np.ones(5), np.ones(4))


def test_a_statistic_that_takes_too_long_is_not_judged_by() -> None:
    with pytest.raises(ValueError, match="required 20"):
        resampled(lambda chosen: float(chosen.mean()), 100, budget_seconds=0.0)


def test_the_same_data_give_the_same_bounds() -> None:
    values = RANDOM.gamma(1.0, 1.0, 200)
    assert mean(values) == mean(values)
    first, second = (resampled(lambda chosen: float(np.median(values[chosen])), 200) for _ in range(2))
    assert first == second


def of_gamma(random: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return np.asarray(random.gamma(2.0, 1.0, n))


@pytest.mark.parametrize("n", [50, 500])
def test_intervals_hold_as_often_as_they_say(n: int) -> None:
    """400 draws: a share of 95 % has a standard error of 1.1 points. benchmarks/intervals.py takes 2,000."""
    random = np.random.default_rng(1)
    held = np.zeros(3)
    for _ in range(400):
        values = of_gamma(random, n)
        down, up, _ = random.multinomial(n, [0.125, 0.075, 0.8])
        after = values + random.normal(0, 0.2, n)
        for number, (found, truth) in enumerate(
            ((mean(values), 2.0), (paired_drop(int(down), int(up), n), 0.05), (ratio(after, values), 1.0))
        ):
            held[number] += found.low <= truth <= found.high
    assert (abs(held / 400 - 0.95) < 0.035).all(), held / 400
