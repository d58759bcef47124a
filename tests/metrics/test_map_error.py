"""Maps with values for the positions of a picture are compared by their PSNR."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.map_error import compare_maps

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.random((6, 3, 32, 32)).astype(np.float32)
DEPTH = RANDOM.uniform(0, 10, (6, 1, 32, 32)).astype(np.float32)


def moved(array: Array) -> Array:
    return np.moveaxis(array, 1, -1)


@pytest.mark.parametrize(
    ("reference", "picture"),
    [
        (DEPTH, PICTURE),
        (DEPTH[:, 0], PICTURE),
        (moved(DEPTH.repeat(2, 1)), moved(PICTURE)),
        (DEPTH[:, :, ::2, ::2], PICTURE),
    ],
    ids=["channels first", "without channels", "channels last", "half the size"],
)
def test_the_error_is_relative_to_the_range(reference: Array, picture: Array) -> None:
    output = reference + RANDOM.choice([-0.1, 0.1], reference.shape)
    found = compare_maps(reference, output, {"step": DEPTH[:, 0, 0], "picture": picture})
    assert found is not None
    assert found.span == pytest.approx(10, abs=0.1)
    assert found.psnr_db() == pytest.approx(40.2, abs=0.1)  # One rounding to int8 is allowed.
    output[0] = reference[0]
    found = compare_maps(reference, output, {"picture": picture})
    assert found is not None
    assert found.psnr_db(np.array([0])) == np.inf


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["channels first", "channels last"])
def test_the_worst_channel_counts(order: tuple[int, ...]) -> None:
    flow = np.concatenate([DEPTH, RANDOM.uniform(0, 1, DEPTH.shape)], 1).astype(np.float32)
    dead = flow.copy()
    dead[:, 1] = 0.5
    found = compare_maps(flow.transpose(order), dead.transpose(order), {"picture": PICTURE})
    assert found is not None
    assert found.span == pytest.approx(1, rel=0.01)
    assert found.psnr_db() < 12
    step = 2 * flow.max() / 254
    rounded = np.rint(flow / step) * step
    found = compare_maps(flow.transpose(order), rounded.transpose(order), {"picture": PICTURE})
    assert found is not None
    assert found.psnr_db() > 45


def test_a_single_outlier_does_not_widen_the_range() -> None:
    reference, output = DEPTH.copy(), DEPTH + RANDOM.choice([-0.5, 0.5], DEPTH.shape)
    reference[0, 0, 0, 0] = output[0, 0, 0, 0] = 80
    found = compare_maps(reference, output, {"picture": PICTURE})
    assert found is not None
    assert found.span == pytest.approx(15, rel=0.02)
    assert found.psnr_db() < 33


def test_rare_values_of_a_sparse_map_are_no_outliers() -> None:
    sparse = np.zeros_like(DEPTH)
    sparse[:, 0, 3, 3] = 10
    assert compare_maps(sparse, sparse, {"picture": PICTURE}) is None


@pytest.mark.parametrize(
    ("reference", "inputs"),
    [
        (DEPTH, {}),
        (DEPTH, {"signal": PICTURE[:, 0]}),
        (DEPTH[:, :, :8, :8], {"picture": PICTURE}),
        (DEPTH[:, :, :20, :], {"picture": PICTURE}),
        (DEPTH[:, :, :16, :16], {"picture": np.repeat(PICTURE, 2, 2).repeat(2, 3)}),
        (DEPTH.repeat(8, 1), {"picture": PICTURE}),
        (np.sign(DEPTH - 5), {"picture": PICTURE}),
        (np.ones_like(DEPTH), {"picture": PICTURE}),
        ((100 * DEPTH).astype(np.int32), {"picture": PICTURE}),
        (DEPTH[:, 0, 0], {"picture": PICTURE}),
    ],
    ids=[
        "no input",
        "no picture",
        "small",
        "other positions",
        "coarse",
        "features",
        "saturated",
        "constant",
        "integers",
        "rows",
    ],
)
def test_other_outputs_are_no_maps_of_a_picture(reference: Array, inputs: dict[str, Array]) -> None:
    assert compare_maps(reference, reference, inputs) is None
