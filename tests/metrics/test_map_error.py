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
    assert found.psnr_db() == pytest.approx(40, abs=0.1)
    output[0] = reference[0]
    found = compare_maps(reference, output, {"picture": picture})
    assert found is not None
    assert found.psnr_db(np.array([0])) == np.inf


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
