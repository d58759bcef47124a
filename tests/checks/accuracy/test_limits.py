"""Limits, bounds, and what so many samples can tell."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.checks.accuracy.limits import limit_for, verdict
from pytest_mnnquant.statistics.intervals import Estimate, paired_drop, share
from tests.golden_text import check_golden

NUMBERS = st.floats(-10, 10)


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high, 100, 0.5)


@pytest.mark.parametrize(
    ("found", "strict", "fails", "unsure"),
    [
        (estimate(0.001, 0.0, 0.005), False, False, False),
        (estimate(0.001, -0.02, 0.02), False, False, True),
        (estimate(0.015, 0.0, 0.03), False, True, True),
        (estimate(0.05, 0.03, 0.07), False, True, False),
        (estimate(0.001, 0.0, 0.005), True, False, False),
        (estimate(0.001, -0.02, 0.02), True, False, True),
        (estimate(0.015, 0.0, 0.03), True, False, True),
        (estimate(0.05, 0.03, 0.07), True, True, False),
    ],
)
def test_the_figure_decides_or_its_bounds(found: Estimate, strict: bool, fails: bool, unsure: bool) -> None:
    held = verdict(found, 0.01, at_least=False, strict=strict)
    assert (held.fails, held.is_unsure) == (fails, unsure)
    mirrored = Estimate(-found.value, -found.high, -found.low, 100, 0.5)
    held = verdict(mirrored, -0.01, at_least=True, strict=strict)
    assert (held.fails, held.is_unsure) == (fails, unsure)


@given(NUMBERS, st.tuples(NUMBERS, NUMBERS, NUMBERS), st.booleans(), st.booleans())
def test_nothing_fails_surely_that_holds(limit: float, rest: tuple[float, ...], at_least: bool, strict: bool) -> None:
    low, value, high = sorted(rest)
    held = verdict(Estimate(value, low, high, 10, 1.0), limit, at_least=at_least, strict=strict)
    assert not (held.fails and strict and held.is_unsure)
    if held.fails:
        assert value < limit if at_least else value > limit
    assert bool(held.doubt) == held.is_unsure


def test_a_limit_that_is_met_exactly_is_kept() -> None:
    assert not verdict(estimate(0.3 - 0.2, 0.1, 0.1), 0.1, at_least=False, strict=False).fails


def test_how_many_samples_could_tell_is_said() -> None:
    """2 % of the answers change, a drop of a point is to be told from none: 541 (see the design's numbers)."""
    held = verdict(paired_drop(1, 1, 100, 0.9), 0.01, at_least=False, strict=False)
    assert held.is_unsure
    assert held.needed == 541
    check_golden("accuracy/how-many-samples-could-tell-is-said", held.doubt)


def test_bounds_that_are_wider_than_normal_ask_for_more_samples() -> None:
    """The normal distribution would be content with 164 samples; these bounds are so wide that 300 can't tell."""
    found = Estimate(0.004, -0.0056, 0.0148, 300, (0.006 / 1.645) * math.sqrt(164))
    held = verdict(found, 0.01, at_least=False, strict=False)
    assert held.is_unsure
    assert held.needed == 972  # 300 * (0.0108 / 0.006)^2
    lower = Estimate(-0.004, -0.0148, 0.0056, 300, found.spread)
    assert verdict(lower, -0.01, at_least=True, strict=False).needed == 972


def test_where_nothing_changed_rare_events_are_still_to_be_ruled_out() -> None:
    """Wilson's bound of 0 in n is z^2 / (n + z^2): below 1 % from 268 samples on."""
    held = verdict(paired_drop(0, 0, 50, 0.9), 0.01, at_least=False, strict=False)
    assert held.needed == 268
    assert not verdict(share(0, 268, 0.9), 0.01, at_least=False, strict=False).is_unsure
    assert verdict(share(0, 266, 0.9), 0.01, at_least=False, strict=False).is_unsure


def test_at_the_limit_no_number_of_samples_is_enough() -> None:
    held = verdict(paired_drop(3, 1, 200, 0.9), 0.01, at_least=False, strict=True)
    assert held.needed is None
    check_golden("accuracy/at-the-limit-no-number-of-samples-is-enough", held.doubt)


def test_no_limit_at_all_is_always_kept() -> None:
    held = verdict(estimate(0.5, 0.4, 0.6), math.inf, at_least=False, strict=True)
    assert not held.fails
    assert not held.is_unsure


def test_limits_hold_for_all_outputs_or_for_some() -> None:
    assert limit_for(0.9, "y") == 0.9
    assert limit_for(None, "y") is None
    assert limit_for({"y": 0.5, "*": 0.9}, "y") == 0.5
    assert limit_for({"y": 0.5, "*": 0.9}, "z") == 0.9
    assert limit_for({"y": 0.5}, "z") is None
