"""Paired ratios: the median and an interval that covers it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_mnnquant.statistics.paired_ratio import paired_ratio

Times = npt.NDArray[np.float64]
TIMES = st.integers(6, 60).flatmap(
    lambda count: st.tuples(*(hnp.arrays(np.float64, count, elements=st.floats(1e-6, 1e3)) for _ in range(2)))
)


@given(TIMES)
def test_the_interval_holds_the_median_and_lies_within_what_was_seen(times: tuple[Times, Times]) -> None:
    reference, candidate = times
    found = paired_ratio(reference, candidate)
    ratios = candidate / reference
    assert ratios.min() <= found.low <= found.median <= found.high <= ratios.max()
    assert found.median == np.median(ratios)
    assert found.pairs == len(reference)


@given(TIMES, st.sampled_from([0.5, 4.0]), st.randoms(use_true_random=False))
def test_unit_and_order_do_not_matter(times: tuple[Times, Times], unit: float, random: object) -> None:
    reference, candidate = times
    order = list(range(len(reference)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert paired_ratio(reference * unit, candidate * unit) == paired_ratio(reference, candidate)
    assert paired_ratio(reference[order], candidate[order]) == paired_ratio(reference, candidate)


@given(TIMES, st.sampled_from([0.25, 2.0, 8.0]))
def test_a_slower_candidate_has_a_ratio_that_much_larger(times: tuple[Times, Times], factor: float) -> None:
    before, after = paired_ratio(*times), paired_ratio(times[0], times[1] * factor)
    assert (after.low, after.median, after.high) == pytest.approx(
        (before.low * factor, before.median * factor, before.high * factor)
    )


@pytest.mark.parametrize("count", range(6))
def test_few_pairs_give_no_interval(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} pairs, required 6"):
        paired_ratio(np.ones(count), np.ones(count))


@pytest.mark.parametrize("count", [6, 20, 150])
def test_the_interval_covers_the_true_median_about_as_often_as_it_says(count: int) -> None:
    """True median 1; seeded. The interval is conservative for few pairs, so only its misses are bounded."""
    random = np.random.default_rng(0)
    found = [paired_ratio(np.ones(count), random.lognormal(0, 0.3, count)) for _ in range(400)]
    missed = sum(not item.low <= 1 <= item.high for item in found)
    assert missed / len(found) < 0.08
    if count == 150:
        assert missed > 0
        assert np.mean([item.high - item.low for item in found]) < 0.2


def test_one_outlier_moves_neither_median_nor_interval_far() -> None:
    calm = np.linspace(0.99, 1.01, 41)
    disturbed = calm.copy()
    disturbed[-1] = 1000.0
    assert paired_ratio(np.ones(41), disturbed) == paired_ratio(np.ones(41), calm)
