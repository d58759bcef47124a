"""What a network adds to its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.findings.defaults import DETAIL
from pytest_mnnquant.metrics.details import compare_detail

RANDOM = np.random.default_rng(0)
Array = npt.NDArray[Any]


def pictures(count: int = 12, size: int = 16) -> Array:
    """Smooth pictures: slopes of all directions."""
    rows, columns = np.mgrid[:size, :size] / size
    slopes = RANDOM.uniform(-1, 1, (3, count, 1, 1, 1))
    return np.asarray(slopes[0] * rows + slopes[1] * columns + slopes[2], np.float32)


def detail(shape: tuple[int, ...], size: float) -> Array:
    return np.asarray(size * RANDOM.standard_normal(shape), np.float32)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_the_input_is_removed_whatever_its_size_and_layout(factor: int, last: bool) -> None:
    given = pictures()
    large = given.repeat(factor, 2).repeat(factor, 3)
    reference = large + detail(large.shape, 0.05)
    output = reference + detail(large.shape, 0.005)
    if last:
        given, reference, output = (np.moveaxis(array, 1, -1) for array in (given, reference, output))
    found = compare_detail(reference, output, {"other": detail((12, 3), 1), "picture": given})
    assert found is not None
    assert found.input == "picture"
    assert found.explained > 0.98
    assert found.sqnr_db.shape == (12,)
    assert found.sqnr_db.mean() == pytest.approx(20, abs=1)


def test_a_network_that_lost_its_detail_has_none_left() -> None:
    given = pictures()
    reference = given + detail(given.shape, 0.05)
    found = compare_detail(reference, given, {"picture": given})
    assert found is not None
    assert found.sqnr_db.mean() == pytest.approx(0, abs=0.5)


def test_what_all_samples_have_in_common_is_neither_detail_nor_input() -> None:
    """A copy of the input, with the mean of what is added."""
    given = pictures()
    reference = given + detail(given.shape, 0.3) + detail((1, *given.shape[1:]), 2)
    found = compare_detail(reference, given + (reference - given).mean(0), {"picture": given})
    assert found is not None
    assert found.sqnr_db.mean() == pytest.approx(0, abs=0.5)


def test_a_detail_below_the_steps_of_a_picture_is_not_required() -> None:
    given = pictures()
    reference = given + detail(given.shape, 1e-6)
    found = compare_detail(reference, reference + detail(given.shape, 1e-4), {"picture": given})
    assert found is not None
    assert found.sqnr_db.min() > 10


@pytest.mark.parametrize("size", [0.0, 0.001])
def test_rounding_to_the_steps_of_a_picture_meets_the_limit(size: float) -> None:
    given = np.kron(RANDOM.standard_normal((16, 3, 8, 8)), np.ones((8, 8)))
    given = ((given - given.min()) / np.ptp(given)).astype(np.float32)
    reference = given + detail(given.shape, size)
    measured = compare_detail(reference, (np.rint(reference * 255) / 255).astype(np.float32), {"picture": given})
    assert measured is not None
    assert measured.sqnr_db.mean() > DETAIL + 2


@pytest.mark.parametrize(
    ("reference", "given"),
    [
        (detail((12, 1, 16, 16), 1), pictures()),
        (detail((12, 10), 1), detail((12, 10), 1)),
        (pictures().mean((2, 3)), pictures()),
        (pictures().mean((1, 2, 3)), pictures()),
        (pictures(6), pictures(12)),
    ],
    ids=["unlike", "no positions", "scores", "one number", "other samples"],
)
def test_other_networks_are_not_judged_so(reference: Array, given: Array) -> None:
    assert compare_detail(reference, reference, {"picture": given}) is None


def test_a_signal_is_a_picture_of_one_axis() -> None:
    given = pictures().reshape(12, 1, 256)
    reference = given + detail(given.shape, 0.05)
    found = compare_detail(reference, reference + detail(given.shape, 0.05), {"wave": given})
    assert found is not None
    assert found.sqnr_db.mean() == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_of_large_pictures_the_middle_is_judged(factor: int) -> None:
    given = pictures(10, 200)
    reference = given.repeat(factor, 2).repeat(factor, 3) + detail((10, 1, 200 * factor, 200 * factor), 0.05)
    output = reference + detail(reference.shape, 0.005)
    output[:, :, :20] = 0
    found = compare_detail(reference, output, {"picture": given})
    assert found is not None
    assert found.sqnr_db.mean() == pytest.approx(20, abs=1)
