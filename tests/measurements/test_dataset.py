"""Samples are chosen at equal distances, with their labels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.measurements.dataset import Dataset, spread_evenly, spread_over_classes


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


@pytest.mark.parametrize(("apart", "first"), [(3, [0, 2, 3, 4, 6, 7, 9]), (0, list(range(10))), (10, list(range(10)))])
def test_samples_are_set_apart_if_some_are_left(apart: int, first: list[int]) -> None:
    numbers = np.arange(10)
    rest, chosen = Dataset({"x": numbers}, numbers).split(apart)
    assert rest.inputs["x"].tolist() == first
    assert sorted({*first, *chosen.inputs["x"].tolist()}) == numbers.tolist()
    assert chosen.labels is not None
    assert chosen.labels.tolist() == chosen.inputs["x"].tolist()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70))
def test_a_subset_has_all_classes_in_their_shares(labels: list[int], most: int) -> None:
    chosen = spread_over_classes(np.array(labels), most).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(most, len(labels))
    counts, whole = Counter(labels[place] for place in chosen), Counter(labels)
    assert len(counts) == min(len(whole), most)
    if most >= len(whole):
        assert all(abs(counts[label] - whole[label] * len(chosen) / len(labels)) < len(whole) for label in whole)


def test_the_digest_with_labels_depends_on_each_label_and_on_their_form() -> None:
    inputs = {"x": np.zeros((2000, 1), np.float32)}
    labels = np.zeros(2000, np.int32)
    changed = labels.copy()
    changed[1000] = 1
    forms = (labels, changed, labels.astype(np.int64), labels.reshape(2000, 1), np.zeros(2000, np.float32), None)
    digests = {Dataset(inputs, form).digest_with_labels() for form in forms}
    digests.add(Dataset(inputs, labels, lengths=(1000, 1000)).digest_with_labels())
    assert len(digests) == 7
    assert Dataset(inputs, labels.copy()).digest_with_labels() in digests
