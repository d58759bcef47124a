"""The latency check: judged by the median of pairs, or strictly by the bound of its interval."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mnnquant.checks.finding import FAILED, INCONCLUSIVE, PASSED
from pytest_mnnquant.checks.latency import check_latency
from pytest_mnnquant.runtime.execute import PairedTimes
from tests.evidence import codes


def times(ratio: float, pairs: int = 100, spread: float = 0.1) -> PairedTimes:
    """Pairs whose ratios scatter about `ratio`, evenly and reproducibly."""
    reference = np.full(pairs, 1e-3)
    return PairedTimes(reference, reference * ratio * np.linspace(1 - spread, 1 + spread, pairs))


def test_without_a_limit_it_is_recorded_and_passes() -> None:
    result = check_latency(times(5.0), None, strict=False)
    assert result.outcome == PASSED
    figures = result.metrics
    assert figures["latency_ratio"] == pytest.approx(5.0)
    assert figures["latency_ratio_low"] < 5.0 < figures["latency_ratio_high"]
    assert (figures["pairs"], figures["float_seconds"]) == (100, 1e-3)
    assert figures["quantized_seconds"] == pytest.approx(5e-3, rel=0.01)
    assert check_latency(times(5.0), None, strict=True).outcome == PASSED


@pytest.mark.parametrize(
    ("ratio", "strict", "outcome"),
    [
        (0.8, False, PASSED),
        (0.8, True, PASSED),
        (0.99, False, PASSED),
        (0.99, True, FAILED),  # the interval reaches beyond 1
        (1.01, False, FAILED),
        (2.0, False, FAILED),
    ],
)
def test_a_limit_is_held_by_the_median_or_strictly_by_the_upper_bound(ratio: float, strict: bool, outcome: str) -> None:
    result = check_latency(times(ratio), 1.0, strict)
    assert result.outcome == outcome
    assert codes(result) == (["MNQ901"] if outcome == FAILED else [])


@pytest.mark.parametrize("limit", [None, 100.0])
@pytest.mark.parametrize("pairs", [0, 5, 29])
def test_few_pairs_leave_it_open_whatever_they_say(pairs: int, limit: float | None) -> None:
    result = check_latency(times(0.5, pairs), limit, strict=False)
    assert result.outcome == INCONCLUSIVE
    assert codes(result) == ["MNQ003"]
    assert result.metrics == {"pairs": pairs}


def test_thirty_pairs_are_enough() -> None:
    assert check_latency(times(0.5, 30), 1.0, strict=True).outcome == PASSED
