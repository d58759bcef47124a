"""The Potts model finds the best pieces: as good as trying all cuts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.statistics.potts import _costs, _Distances, _partitions, best_cuts

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12)


@given(NUMBERS)
def test_distances_from_the_median_are_summed_as_values_come(values: list[float]) -> None:
    distances = _Distances()
    for count, value in enumerate(values, start=1):
        distances.add(value)
        known = np.array(values[:count])
        assert distances.total == pytest.approx(np.abs(known - np.median(known)).sum(), abs=1e-6)


@given(st.lists(st.floats(-10, 10), min_size=6, max_size=9))
def test_no_other_cuts_cost_less(values: list[float]) -> None:
    array = np.array(values)

    def cost(cuts: tuple[int, ...]) -> float:
        return sum(float(np.abs(piece - np.median(piece)).sum()) for piece in np.split(array, cuts))

    for pieces, (total, cuts) in enumerate(_partitions(_costs(array, 2), 3), start=1):
        every = [
            cut
            for cut in itertools.combinations(range(2, len(array) - 1), pieces - 1)
            if all(end - start >= 2 for start, end in itertools.pairwise((0, *cut, len(array))))
        ]
        assert total == pytest.approx(cost(cuts), abs=1e-9)
        assert total == pytest.approx(min(map(cost, every)), abs=1e-9)


def test_levels_without_noise_are_told_apart() -> None:
    assert best_cuts(np.repeat([1.0, 2.0, 1.5], (5, 7, 6)), 2, 1e-9) == (5, 12)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_values_have_no_pieces(count: int) -> None:
    assert best_cuts(np.arange(float(count)), 2, 1e-9) == ()
