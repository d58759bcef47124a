"""A forecast is what a network says beyond the last known value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.persistence import compare_beyond_last

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
PAST = (RANDOM.normal(50, 10, (60, 1)) + RANDOM.standard_normal((60, 24)).cumsum(1)).astype(np.float32)
CHANGE = RANDOM.standard_normal((60, 6)).cumsum(1)
FUTURE = (PAST[:, -1:] + CHANGE).astype(np.float32)
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
    assert found.signal.sum() == pytest.approx(np.square(CHANGE - CHANGE.mean(0)).sum(), rel=0.1)
    assert found.noise == pytest.approx(np.full(60, 0.06), rel=0.01)


@pytest.mark.parametrize(
    ("reference", "past"),
    [
        (CHANGE.astype(np.float32), PAST),
        (FUTURE[:12], PAST[:12]),
        (FUTURE[:, :1], PAST),
        (FUTURE, PAST[:, -4:]),
        (FUTURE, PAST[:30]),
        (FUTURE.astype(np.int32), PAST),
        (np.ones_like(FUTURE), PAST),
    ],
    ids=["unrelated", "few samples", "one number", "no series", "other samples", "integers", "constant"],
)
def test_other_outputs_are_no_forecasts(reference: Array, past: Array) -> None:
    assert compare_beyond_last(reference, reference, {"past": past}) is None
