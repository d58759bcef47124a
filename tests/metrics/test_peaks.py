"""Heat maps are compared by the places of their peaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.peaks import compare_peaks

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
SIZE = 32


def maps(places: Array, sigma: float = 1.5, height: float = 1.0) -> Array:
    """A peak at each place [samples, maps, 2] (down, across)."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    away = (rows - places[..., :1, None]) ** 2 + (columns - places[..., 1:, None]) ** 2
    return np.asarray(height * np.exp(-away / (2 * sigma**2)), np.float32)


PLACES = RANDOM.integers(6, SIZE - 6, (10, 4, 2))
REFERENCE = maps(PLACES)


@pytest.mark.parametrize(
    ("output", "share"),
    [
        (REFERENCE + 0.02 * RANDOM.standard_normal(REFERENCE.shape), 1.0),
        (0.7 * REFERENCE + 0.1, 1.0),
        (maps(PLACES + 4), 0.0),
        (0.3 * REFERENCE, 0.0),
        (20 * REFERENCE, 0.0),
        (np.where(np.arange(10)[:, None, None, None] < 5, REFERENCE, maps(PLACES + 4)), 0.5),
    ],
    ids=["noise", "lower", "moved", "flat", "tall", "half"],
)
def test_a_peak_stays_or_moves(output: Array, share: float) -> None:
    found = compare_peaks(REFERENCE, output)
    assert found is not None
    assert found.expected.tolist() == [4] * 10
    assert found.share == share


def test_a_wide_peak_may_move_by_a_part_of_its_radius() -> None:
    wide = maps(PLACES, 2.5)
    found = compare_peaks(wide, maps(PLACES + 1, 2.5))
    assert found is not None
    assert found.share == 1.0
    narrow = compare_peaks(maps(PLACES, 0.8), maps(PLACES + 1, 0.8))
    assert narrow is not None
    assert narrow.share == 0.0


def test_a_map_without_an_object_has_no_peak() -> None:
    reference = REFERENCE.copy()
    reference[:, 0] *= 0.1
    found = compare_peaks(reference, reference)
    assert found is not None
    assert found.expected.tolist() == [3] * 10


def test_a_lost_map_is_not_made_up_for_by_others() -> None:
    output = REFERENCE.copy()
    output[:, 2] = 0.01 * RANDOM.standard_normal(output[:, 2].shape)
    found = compare_peaks(REFERENCE, output)
    assert found is not None
    assert (found.expected.sum(), found.kept.sum()) == (10, 0)


def test_a_peak_in_an_empty_map_is_not_expected() -> None:
    reference = REFERENCE.copy()
    reference[5:] *= 0.1
    found = compare_peaks(reference, REFERENCE)
    assert found is not None
    assert (found.expected.sum(), found.share) == (40, 0.5)


def test_maps_may_be_the_last_axis() -> None:
    reference, output = (
        np.moveaxis(array, 1, -1) for array in (REFERENCE, REFERENCE + 0.02 * RANDOM.standard_normal(REFERENCE.shape))
    )
    found = compare_peaks(reference, output)
    assert found is not None
    assert (found.expected.tolist(), found.share) == ([4] * 10, 1.0)


@pytest.mark.parametrize(
    "reference",
    [
        RANDOM.standard_normal((6, 3, SIZE, SIZE)).astype(np.float32),
        (maps(PLACES, 2.5) > 0.5).astype(np.float32),
        np.maximum(REFERENCE, maps((PLACES + 13) % SIZE)),
        maps(PLACES, 9.0),
        np.zeros((6, 3, SIZE, SIZE), np.float32),
        REFERENCE[:, :, :8, :8],
        REFERENCE[:, 0],
    ],
    ids=["noise", "masks", "two peaks", "a hill", "nothing", "small", "without channels"],
)
def test_other_maps_have_no_peaks(reference: Array) -> None:
    assert compare_peaks(reference, reference) is None


def test_the_map_that_lost_its_peaks_is_named() -> None:
    output = REFERENCE.copy()
    assert compare_peaks(REFERENCE, output).map is None  # type: ignore[union-attr]
    output[:, 1] = 0
    found = compare_peaks(REFERENCE, output)
    assert found is not None
    assert (found.map, found.share) == (1, 0.0)
