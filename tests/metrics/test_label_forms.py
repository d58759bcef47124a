"""Labels are taken in the forms that people save them in, if these are unambiguous."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.task import MetricError, metric_named, output_for, scores

Array = npt.NDArray[Any]
LABELS = np.array([2, 0, 1, 2, 2])
SCORES = np.eye(3)[LABELS] + np.random.default_rng(0).normal(0, 0.1, (5, 3))
MAP = np.random.default_rng(1).integers(0, 3, (5, 4, 4))
MASKS = np.moveaxis(np.eye(3)[MAP], -1, 1) + np.random.default_rng(2).normal(0, 0.1, (5, 3, 4, 4))


def value(name: str, output: Array, labels: Array) -> float:
    metric = metric_named(name)
    assert metric is not None
    assert output_for(metric, {"output": output}, labels) == "output"
    return scores(metric, {"output": output}, "output", labels).value


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.astype(np.float64),
        LABELS[:, None],
        LABELS[:, None].astype("f"),
        np.eye(3)[LABELS],
        np.eye(3, dtype=int)[LABELS],
    ],
    ids=["floats", "column", "column of floats", "one-hot", "one-hot integers"],
)
def test_class_numbers(labels: Array) -> None:
    assert value("top1", SCORES, labels) == value("top1", SCORES, LABELS) == 1
    assert value("top2", SCORES, labels) == 1


@pytest.mark.parametrize(
    "labels",
    [MAP.astype(np.float32), MAP[:, None], np.moveaxis(np.eye(3)[MAP], -1, 1)],
    ids=["floats", "an axis of one", "one-hot"],
)
def test_class_maps(labels: Array) -> None:
    spoilt = np.where(np.random.default_rng(3).random(MASKS.shape) < 0.2, 1, MASKS)
    assert value("miou", spoilt, labels) == value("miou", spoilt, MAP) < 1


def test_sequences_of_floats() -> None:
    output = np.eye(4)[np.array([[1, 0, 2], [3, 3, 0]])]
    assert value("words", output, np.array([[1.0, 2.0], [3.0, -1.0]])) == 1


@pytest.mark.parametrize(
    "labels",
    [LABELS + 0.5, np.eye(4)[LABELS], np.ones((5, 3)), np.where(LABELS == 0, np.nan, LABELS), LABELS + 1j],
    ids=["halves", "rows of more classes", "several classes", "NaN", "complex"],
)
def test_other_forms_are_refused(labels: Array) -> None:
    with pytest.raises(MetricError):
        value("top1", SCORES, labels)


@pytest.mark.parametrize("labels", [LABELS + 1, LABELS + 1.0, (LABELS + 1)[:, None]])
def test_labels_from_1_to_the_number_of_classes_are_reported_as_counted_from_1(labels: Array) -> None:
    with pytest.raises(MetricError, match="1 to 3 and never 0") as error:
        value("top1", SCORES, labels)
    assert "labels - 1" in error.value.fix
    # One class too many, with a 0 among them: not counted from 1.
    with pytest.raises(MetricError) as other:
        value("top1", SCORES, np.array([0, 1, 2, 3, 3]))
    assert not other.value.fix


@pytest.mark.parametrize("name", ["top1", "miou", "mae", "words"])
def test_text_is_refused(name: str) -> None:
    with pytest.raises(MetricError, match="text") as error:
        value(name, SCORES, LABELS.astype(str))
    assert error.value.fix
