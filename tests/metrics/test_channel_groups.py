"""Channels with a unit of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.channel_groups import channel_groups

RANDOM = np.random.default_rng(0)
Array = npt.NDArray[Any]
BOXES, SCORES = RANDOM.uniform(10, 300, (40, 4, 30)), RANDOM.uniform(0, 1, (40, 3, 30))
ROWS = np.concatenate([BOXES, SCORES], 1).astype(np.float32)


def test_coordinates_and_scores_of_one_layer_are_two_groups() -> None:
    groups = channel_groups(ROWS)
    assert groups is not None
    assert groups.shape == (7, 30)
    assert (groups == np.array([1, 1, 1, 1, 0, 0, 0])[:, None]).all()
    last = channel_groups(np.moveaxis(ROWS, 1, 2))
    assert last is not None
    assert (last == groups.T).all()


def test_numbers_of_several_units_are_groups() -> None:
    numbers = np.stack([RANDOM.uniform(20, 80, 40), RANDOM.uniform(0, 1, 40), RANDOM.uniform(2000, 9000, 40)], 1)
    groups = channel_groups(numbers.astype(np.float32))
    assert groups is not None
    assert groups.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    "values",
    [
        RANDOM.standard_normal((40, 10)),
        RANDOM.standard_normal((40, 10)) * np.geomspace(1, 10, 10),
        np.concatenate([BOXES, np.zeros((40, 3, 30))], 1),
        np.concatenate([BOXES, SCORES * (RANDOM.random((40, 3, 30)) > 0.95)], 1),
        RANDOM.uniform(0.5, 1, (40, 1, 64)) * np.where(np.arange(64) < 32, 1e-2, np.arange(40)[:, None, None] < 20),
        ROWS[:4],
    ],
    ids=["alike", "in steps", "constant", "rare", "a silent half", "few samples"],
)
def test_other_channels_are_not_units(values: Array) -> None:
    assert channel_groups(values.astype(np.float32)) is None


def test_channels_of_zeros_are_left_out() -> None:
    groups = channel_groups(np.concatenate([ROWS, 0 * ROWS[:, :1]], 1))
    assert groups is not None
    assert groups[:, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert channel_groups(0 * ROWS) is None
