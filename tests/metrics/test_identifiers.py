"""Class numbers and tokens, value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.identifiers import are_identifiers, compare_identifiers

RANDOM = np.random.default_rng(0)


def masks(shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Classes 1 and 2 on a background of class 0."""
    return RANDOM.choice([0, 1, 2], shape, p=[0.9, 0.06, 0.04]).astype(np.int32)


@pytest.mark.parametrize("shape", [(40, 8, 8), (40, 64), (40, 1, 8, 8), (8, 5, 8, 8)])
def test_the_background_is_set_apart_at_any_rank(shape: tuple[int, ...]) -> None:
    reference = masks(shape)
    lost = np.where(reference == 2, 0, reference)
    found = compare_identifiers(reference, lost)
    assert found.common == 0
    first, second = found.values
    assert (first.value, first.recall, first.iou) == (1, 1.0, 1.0)
    assert (second.value, second.recall, second.iou) == (2, 0.0, 0.0)
    assert found.iou == pytest.approx(first.both / (first.expected + second.expected))
    assert (reference == lost).mean() > 0.95


def test_equal_values_agree_wholly_and_nothing_but_background_too() -> None:
    reference = masks((10, 30))
    assert compare_identifiers(reference, reference).iou == 1
    empty = np.zeros((10, 30), np.int32)
    assert compare_identifiers(empty, empty).iou == 1
    assert compare_identifiers(empty, reference).iou == 0


def test_one_class_per_sample_has_no_background() -> None:
    reference = np.array([0, 0, 0, 1, 2])
    found = compare_identifiers(reference, reference)
    assert found.common is None
    assert [value.expected for value in found.values] == [3, 1, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (masks((10, 30)), True),
        (masks((10, 30)).astype(np.float32), True),
        (RANDOM.standard_normal((10, 30)).astype(np.float32), False),
        (RANDOM.integers(0, 256, (10, 300)), False),
        (RANDOM.integers(0, 9000, (10, 3000)), False),
        (np.ones((10, 3), np.float32), False),
    ],
    ids=["classes", "classes as floats", "floats", "grey levels", "too many", "a constant"],
)
def test_quantities_are_not_identifiers(values: npt.NDArray[Any], expected: bool) -> None:
    other = values.copy()
    other[:, ::3] += 1
    assert are_identifiers(values, other) == expected
    assert not are_identifiers(values, other + 0.5)


def test_coordinates_and_counts_with_noise_are_quantities() -> None:
    points = RANDOM.integers(0, 640, (400, 8))
    assert not are_identifiers(points, points + RANDOM.integers(-3, 4, points.shape))
    counts = RANDOM.integers(0, 21, (400, 4))
    noisy = counts + RANDOM.choice([-1, 0, 1], counts.shape, p=[0.05, 0.9, 0.05])
    assert not are_identifiers(counts, noisy)
    assert not are_identifiers(counts.astype(np.float32), noisy.astype(np.float32))


@pytest.mark.parametrize("shape", [(20, 24, 24), (400, 30)], ids=["map", "sequence"])
@pytest.mark.parametrize("classes", [4, 21, 30])
def test_classes_confused_with_their_neighbours_are_identifiers(shape: tuple[int, ...], classes: int) -> None:
    reference = RANDOM.integers(0, classes, shape)
    assert are_identifiers(reference, np.where(reference == 2, 3, reference))


def test_a_map_of_classes_confused_with_any_neighbour_holds_identifiers() -> None:
    reference = RANDOM.integers(0, 21, (20, 1, 24, 24))
    assert are_identifiers(reference, np.where(RANDOM.random(reference.shape) < 0.2, reference + 1, reference))


def test_related_classes_in_order_are_identifiers() -> None:
    reference = RANDOM.integers(0, 1000, 3000)
    output = reference.copy()
    output[:300] = np.clip(output[:300] + RANDOM.normal(0, 60, 300).astype(int), 0, 999)
    output[300:360] = RANDOM.integers(0, 1000, 60)
    assert are_identifiers(reference, output)


def test_values_are_counted_also_if_the_output_has_others() -> None:
    reference, output = np.array([[3, 3, 5], [5, 5, 5], [9, 3, 5]]), np.array([[3, 9, 7], [5, 5, 5], [12, 3, -1]])
    values = [
        (value.value, value.samples, value.expected, value.actual, value.both)
        for value in compare_identifiers(reference, output).values
    ]
    assert compare_identifiers(reference, output).common == 5
    assert values == [(3, 2, 3, 2, 2), (9, 1, 1, 1, 0)]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floats_too_large_for_fractions_are_not_identifiers(kind: Any) -> None:
    quantities = np.array([[1.1e16, 2.3e17, 5.7e16]], kind)
    assert not are_identifiers(quantities, quantities)
    assert are_identifiers(np.array([[1, 2, 2]], kind), np.array([[1, 2, 1]], kind))
