"""The rank test, against scipy's where that is installed, and against counting."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.statistics.mann_whitney import mann_whitney

Values = npt.NDArray[np.float64]


def counted(first: Values, second: Values) -> float:
    """The p-value by all ways to choose the first set: only without ties."""
    both = np.concatenate([first, second])
    middle = len(first) * len(second) / 2

    def off(chosen: Values) -> float:
        rest = np.setdiff1d(both, chosen)
        return abs(float((chosen[:, None] > rest).sum()) - middle)

    seen = off(first)
    ways = [off(np.array(chosen)) for chosen in itertools.combinations(both, len(first))]
    return sum(way >= seen for way in ways) / len(ways)


@pytest.mark.parametrize(("one", "two"), [(1, 4), (2, 6), (3, 3), (4, 5), (5, 2)])
def test_few_values_are_counted_exactly(one: int, two: int, random: np.random.Generator) -> None:
    for _ in range(5):
        values = random.permutation(one + two).astype(float)
        assert mann_whitney(values[:one], values[one:]) == pytest.approx(counted(values[:one], values[one:]))


def test_apart_values_are_as_unlikely_as_their_orders_are_many() -> None:
    assert mann_whitney(np.arange(6.0), np.arange(6.0, 13.0)) == pytest.approx(2 / 1716)


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_many_values_and_ties_as_scipy_has_them(shift: float, random: np.random.Generator) -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    for digits in (1, 8):
        first, second = random.normal(size=80).round(digits), (random.normal(size=60) + shift).round(digits)
        theirs = stats.mannwhitneyu(first, second, method="asymptotic").pvalue
        assert mann_whitney(first, second) == pytest.approx(theirs, rel=1e-6)


def test_equal_and_missing_values_tell_nothing() -> None:
    assert mann_whitney(np.ones(80), np.ones(80)) == 1.0
    assert mann_whitney(np.ones(3), np.ones(4)) == 1.0
    assert mann_whitney(np.ones(3), np.array([])) == 1.0
