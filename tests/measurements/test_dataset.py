"""Samples are chosen at equal distances, with their labels."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mnnquant.measurements.dataset import Dataset, spread_evenly


@pytest.mark.parametrize(
    ("total", "most", "expected"),
    [(10, 3, [0, 4, 9]), (10, 2, [0, 9]), (10, 1, [0]), (3, 5, [0, 1, 2]), (1, 4, [0])],
)
def test_the_ends_are_chosen(total: int, most: int, expected: list[int]) -> None:
    assert spread_evenly(total, most).tolist() == expected


@pytest.mark.parametrize(
    ("total", "most", "expected"),
    [(10, 1, [5]), (10, 2, [2, 7]), (10, 5, [1, 3, 5, 7, 9]), (3, 5, [0, 1, 2])],
)
def test_without_ends_the_middles_are_chosen(total: int, most: int, expected: list[int]) -> None:
    assert spread_evenly(total, most, ends=False).tolist() == expected


def test_labels_go_with_their_samples() -> None:
    numbers = np.arange(1000)
    spread = Dataset({"x": numbers[:, None]}, numbers, origin="here", alone=True).spread(128)
    assert spread.labels is not None
    assert spread.labels.tolist() == spread.inputs["x"][:, 0].tolist()
    assert (spread.samples, spread.labels[0], spread.labels[-1]) == (128, 0, 999)
    assert (spread.origin, spread.alone) == ("here", True)


def test_few_samples_stay_as_they_are() -> None:
    data = Dataset({"x": np.arange(10)})
    assert data.spread(10) is data
