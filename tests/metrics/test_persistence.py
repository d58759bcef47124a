"""A forecast is what a network says beyond the last known value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.persistence import compare_beyond_last

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
TIME = np.arange(30) / 5 + RANDOM.uniform(0, 6, (60, 1))
SMOOTH = RANDOM.normal(50, 5, (60, 1)) + 3 * np.sin(TIME)
PAST, CHANGE = SMOOTH[:, :24].astype(np.float32), SMOOTH[:, 24:] - SMOOTH[:, 23:24]
FUTURE = (PAST[:, -1:] + CHANGE).astype(np.float32)
TABLE = RANDOM.standard_normal((60, 10))
OUTPUT = FUTURE + RANDOM.choice([-0.1, 0.1], FUTURE.shape)


@pytest.mark.parametrize(
    "past",
    [PAST, PAST[:, None], np.stack([RANDOM.standard_normal(PAST.shape), PAST], 2), (PAST - 50) / 10],
    ids=["flat", "one series", "among others", "normalized"],
)
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_the_last_value_is_removed(past: Array, shape: tuple[int, ...]) -> None:
    inputs = {"hour": np.zeros((60, 1), np.float32), "past": np.asarray(past, np.float32)}
    found = compare_beyond_last(FUTURE.reshape(60, *shape), OUTPUT.reshape(60, *shape), inputs)
    assert found is not None
    assert found.input == "past"
    assert found.signal.sum() == pytest.approx(np.square(CHANGE - CHANGE.mean(0)).sum(), rel=0.2)
    assert found.noise == pytest.approx(np.full(60, 0.06), rel=0.01)


@pytest.mark.parametrize(
    ("reference", "past"),
    [
        (CHANGE.astype(np.float32), PAST),
        (FUTURE[:7], PAST[:7]),
        (FUTURE[:, :1], PAST),
        (FUTURE, PAST[:, -4:]),
        (FUTURE, PAST[:30]),
        (FUTURE.astype(np.int32), PAST),
        (np.ones_like(FUTURE), PAST),
        (TABLE[:, -1:] * (3, 2, 2.5) + 0.3 * TABLE[:, :3], TABLE),
    ],
    ids=["unrelated", "few samples", "one number", "no series", "other samples", "integers", "constant", "table"],
)
def test_other_outputs_are_no_forecasts(reference: Array, past: Array) -> None:
    assert compare_beyond_last(reference, reference, {"past": past}) is None


def decibels(reference: Array, output: Array, past: Array) -> float:
    found = compare_beyond_last(reference, output, {"past": past})
    assert found is not None
    return float(10 * np.log10(found.signal.sum() / found.noise.sum()))


def test_rounding_of_the_output_is_allowed_but_no_copy_of_the_last_value() -> None:
    past = 100 + RANDOM.standard_normal((400, 96)).cumsum(1)
    last, trend = past[:, -1:], (past[:, -1:] - past[:, -25:-24]) / 24
    reference = last + 0.1 * trend * np.arange(1, 13)
    step = np.ptp(reference) / 255
    assert decibels(reference, np.rint(reference / step) * step, past) > 25
    reference = last + np.sin(np.arange(12) / 3) * RANDOM.standard_normal((400, 1))
    assert decibels(reference, np.repeat(last, 12, 1), past) < 21


@pytest.mark.parametrize("axis", [1, 2])
def test_each_of_several_series_has_its_last_value(axis: int) -> None:
    past = RANDOM.standard_normal((60, 48, 5)).cumsum(1)
    copy = np.repeat(past[:, -1:], 12, 1)
    reference = copy + np.sin(np.arange(12) / 3)[:, None] * RANDOM.standard_normal((60, 1, 5))
    assert decibels(np.moveaxis(reference, 2, axis), np.moveaxis(copy, 2, axis), past) < 21


def test_an_error_that_no_forecast_can_avoid_is_allowed() -> None:
    """Steps of a random walk with a standard deviation of 1 can't be known."""
    past = RANDOM.standard_normal((60, 48)).cumsum(1)
    reference = past[:, -1:] + 0.1 * np.arange(12) * RANDOM.standard_normal((60, 1))
    for error, is_allowed in ((0.25, True), (0.4, False)):
        output = reference + RANDOM.choice([-error, error], reference.shape)
        assert (decibels(reference, output, past) > 27) == is_allowed


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2)])
def test_series_of_a_graph_have_their_last_values(axes: tuple[int, ...]) -> None:
    """Steps, nodes and features, on any axis; the output has the first feature."""
    past = RANDOM.standard_normal((30, 24, 40, 2)).cumsum(1)
    reference = np.repeat(past[:, -1:, :, :1], 6, 1) + RANDOM.standard_normal((30, 6, 40, 1))
    copy = np.repeat(past[:, -1:, :, :1], 6, 1)
    assert decibels(reference, copy, past.transpose(axes)) < 18


def test_few_samples_need_a_last_value_that_explains_more() -> None:
    change = RANDOM.standard_normal((8, 6))
    assert compare_beyond_last(PAST[:8, -1:] + 0.2 * change, PAST[:8, :6], {"past": PAST[:8]}) is not None
    assert compare_beyond_last(PAST[:8, -1:] + 2 * change, PAST[:8, :6], {"past": PAST[:8]}) is None


def test_a_picture_is_not_a_series() -> None:
    columns = np.repeat(RANDOM.uniform(0, 1, (40, 1, 1, 32)), 32, 2)
    assert compare_beyond_last(columns, columns, {"image": columns}) is None
