"""Task metrics: each against its definition, worked out by hand or in another way."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.metrics.task import (
    MetricError,
    Scores,
    TaskMetric,
    edits,
    metric_named,
    output_for,
    read_sequences,
    scores,
)

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.standard_normal((200, 12)).astype(np.float32)
LABELS = RANDOM.integers(0, 12, 200)
WORDS = st.lists(st.integers(1, 4), max_size=6)


def metric(name: str) -> TaskMetric:
    found = metric_named(name)
    assert found is not None
    return found


def scored(name: str, output: Array, labels: Array) -> Scores:
    chosen = metric(name)
    return scores(chosen, {"y": output}, output_for(chosen, {"y": output}, labels), labels)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_top_k_counts_labels_among_the_k_largest(count: int) -> None:
    order = np.argsort(-LOGITS, axis=1)[:, :count]
    expected = np.mean([label in row for label, row in zip(LABELS, order, strict=True)])
    assert scored(f"top{count}", LOGITS, LABELS).value == pytest.approx(expected)
    assert scored(f"top{count}", LOGITS, LABELS[:, None]).value == pytest.approx(expected)


def test_top_1_of_class_numbers_is_their_equality() -> None:
    found = LABELS.copy()
    found[:50] = (found[:50] + 1) % 12
    assert scored("top1", found[:, None], LABELS).value == 0.75


def test_the_commonest_label_is_the_baseline_of_top_1() -> None:
    labels = np.array([0] * 150 + [1] * 50)
    assert scored("top1", LOGITS, labels).baseline == 0.75
    assert scored("top5", LOGITS, labels).baseline is None


def maps(*rows: list[int]) -> Array:
    return np.array(rows)


def test_mean_iou_is_taken_over_the_classes_of_all_samples() -> None:
    labels = maps([0, 0, 1, 1], [1, 1, 1, 255])
    found = maps([0, 1, 1, 1], [1, 1, 0, 0])
    # Class 0: 1 of 3 (the pixel labelled 255 is left out); class 1: 4 of 6.
    expected = (1 / 3 + 4 / 6) / 2
    logits = np.stack([found == 0, found == 1], axis=1).astype(np.float32)
    assert scored("miou", logits, labels).value == pytest.approx(expected)


@pytest.mark.parametrize("form", ["map", "column", "one-hot"])
def test_classes_may_be_last_as_in_tflite(form: str) -> None:
    logits, labels = RANDOM.standard_normal((6, 5, 3, 4)), RANDOM.integers(0, 5, (6, 3, 4))
    given = {"map": labels, "column": labels[..., None], "one-hot": np.eye(5)[labels]}[form]
    last = np.ascontiguousarray(np.moveaxis(logits, 1, -1))
    assert scored("miou", last, given).value == scored("miou", logits, labels).value < 0.4


@pytest.mark.parametrize(
    ("name", "output", "labels", "reason"),
    [
        ("top1", np.zeros((0, 5)), np.zeros(0, int), "empty array"),
        ("miou", np.zeros((0, 5, 2, 2)), np.zeros((0, 2, 2), int), "empty array"),
        ("top1", np.eye(5), np.array([0, 1, np.nan, 3, 4]), "NaN"),
        ("miou", np.zeros((2, 5, 2, 2)), np.full((2, 2, 2), np.inf), "NaN or infinity"),
    ],
)
def test_labels_that_are_missing_are_named(name: str, output: Array, labels: Array, reason: str) -> None:
    with pytest.raises(MetricError, match=reason):
        scored(name, output, labels)


def test_a_class_that_is_nowhere_does_not_count_in_mean_iou() -> None:
    labels = maps([0, 0, 1, 1])
    logits = np.stack([labels == number for number in range(7)], axis=1).astype(np.float32)
    assert scored("miou", logits, labels).value == 1


def test_one_pixel_of_a_class_without_labels_counts_in_the_union_of_its_true_class() -> None:
    labels = np.repeat([0, 1, 2], 1000)[None].reshape(1, 30, 100)
    found = labels.copy()
    found[0, 0, 0] = 5
    logits = np.stack([found == number for number in range(7)], axis=1).astype(np.float32)
    for output in (logits, found):
        assert scored("miou", output, labels).value == pytest.approx((0.999 + 1 + 1) / 3)


def test_errors_are_means_over_elements() -> None:
    output, labels = RANDOM.standard_normal((30, 4)), RANDOM.standard_normal((30, 4))
    assert scored("mae", output, labels).value == pytest.approx(np.abs(output - labels).mean())
    assert scored("rmse", output, labels).value == pytest.approx(np.sqrt(np.square(output - labels).mean()))
    assert metric("mae").lower_is_better
    assert not metric("mae").is_share


def steps(*classes: int) -> Array:
    return np.eye(6, dtype=np.float32)[list(classes)]


def test_sequences_are_read_without_blanks_and_repetitions() -> None:
    assert read_sequences(np.stack([steps(0, 1, 1, 0, 1, 2, 2), steps(3, 3, 3, 3, 3, 3, 3)])) == [[1, 1, 2], [3]]


def test_words_must_be_whole_and_characters_count_edits() -> None:
    output = np.stack([steps(1, 0, 2, 0, 3), steps(1, 0, 2, 0, 4), steps(0, 0, 0, 0, 0)])
    labels = np.array([[1, 2, 3], [1, 2, 3], [5, -1, -1]])
    assert scored("words", output, labels).value == pytest.approx(1 / 3)
    assert scored("characters", output, labels).value == pytest.approx(1 - 2 / 7)


def slow_edits(first: list[int], second: list[int]) -> int:
    if not first or not second:
        return len(first) + len(second)
    rest = slow_edits(first[1:], second[1:]) + (first[0] != second[0])
    return min(rest, 1 + slow_edits(first[1:], second), 1 + slow_edits(first, second[1:]))


@given(WORDS, WORDS)
def test_edits_are_the_fewest(first: list[int], second: list[int]) -> None:
    assert edits(first, second) == slow_edits(first, second)


@pytest.mark.parametrize("name", ["top1", "top5", "miou", "mae", "rmse", "words", "characters"])
def test_a_figure_on_chosen_samples_is_the_figure_of_these_alone(name: str) -> None:
    """What confidence intervals rest on: samples may be drawn again and again."""
    cases: dict[str, tuple[Array, Array]] = {
        "miou": (RANDOM.standard_normal((40, 5, 3, 3)), RANDOM.integers(0, 5, (40, 3, 3))),
        "mae": (RANDOM.standard_normal((40, 4)), RANDOM.standard_normal((40, 4))),
        "rmse": (RANDOM.standard_normal((40, 4)), RANDOM.standard_normal((40, 4))),
        "words": (RANDOM.standard_normal((40, 4, 3)).astype(np.float32), RANDOM.integers(1, 3, (40, 2))),
        "characters": (RANDOM.standard_normal((40, 4, 3)).astype(np.float32), RANDOM.integers(1, 3, (40, 2))),
    }
    output, labels = cases.get(name, (LOGITS[:40], LABELS[:40]))
    output = output.astype(np.float32)
    chosen = np.random.default_rng(3).integers(0, 40, 40)
    assert scored(name, output, labels).of(chosen) == pytest.approx(scored(name, output[chosen], labels[chosen]).value)


@pytest.mark.parametrize(
    ("name", "output", "labels"),
    [
        ("top1", LOGITS, LABELS + 0.5),
        ("top1", LOGITS, LABELS + 5),
        ("top1", LOGITS, LABELS - 5),
        ("top12", LOGITS, LABELS),
        ("miou", LOGITS, LABELS),
        ("mae", LOGITS, LABELS),
        ("words", LOGITS, LABELS),
    ],
)
def test_labels_of_another_kind_are_refused(name: str, output: Array, labels: Array) -> None:
    with pytest.raises(MetricError, match="no output matches the labels"):
        scored(name, output, labels)


def test_of_several_outputs_one_must_be_named() -> None:
    outputs = {"a": LOGITS, "b": LOGITS}
    with pytest.raises(MetricError, match=r"several outputs match .*: top1@a"):
        output_for(metric("top1"), outputs, LABELS)
    assert output_for(metric("top1@b"), outputs, LABELS) == "b"
    with pytest.raises(MetricError, match=r"'c'.*: a, b"):
        output_for(metric("top1@c"), outputs, LABELS)


def test_labels_must_be_there() -> None:
    with pytest.raises(MetricError, match="needs labels"):
        output_for(metric("mae"), {"y": LOGITS}, None)


def test_other_names_are_no_metrics() -> None:
    assert metric_named("f1") is None
    with pytest.raises(MetricError, match="at least 1"):
        metric_named("top0")


def own(call: Any) -> Scores:
    chosen = TaskMetric("m.py:f", "f", is_share=False, call=call)
    return scores(chosen, {"y": LOGITS}, "", LABELS)


def test_a_callable_gives_one_number_or_one_a_sample() -> None:
    single = own(lambda outputs, labels: (outputs["y"].argmax(1) == labels).mean())
    each = own(lambda outputs, labels: outputs["y"].argmax(1) == labels)
    assert single.each is None
    assert single.value == each.value
    chosen = np.array([0, 1, 1, 5])
    assert single.of(chosen) == each.of(chosen)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda outputs, labels: outputs["z"], "raised KeyError: 'z'"),
        (lambda outputs, labels: np.nan, "returned NaN or infinity"),
        (lambda outputs, labels: np.zeros((3, 3)), r"array of shape \[3, 3\]"),
        (lambda outputs, labels: "high", "raised ValueError"),
    ],
)
def test_a_callable_that_gives_nothing_usable_is_told(call: Any, problem: str) -> None:
    with pytest.raises(MetricError, match=problem):
        own(call)


def test_one_channel_is_no_map_of_classes() -> None:
    with pytest.raises(MetricError, match="no output matches"):
        scored("miou", RANDOM.standard_normal((4, 1, 3, 3)), np.ones((4, 3, 3), int))


def test_of_maps_of_class_numbers_255_is_no_class() -> None:
    labels = maps([0, 0, 1, 255], [2, 2, 255, 255])
    found = np.where(labels == 255, 0, labels)
    assert scored("miou", found, labels).value == 1


MAP = RANDOM.integers(0, 3, (20, 8, 8))


@pytest.mark.parametrize(
    "labels",
    [MAP + 1, np.where(MAP, 255, 0).astype(np.uint8), np.full_like(MAP, -1), np.full_like(MAP, 255), MAP + 9],
    ids=["counted from 1", "0 and 255", "ignored", "255", "other classes"],
)
def test_maps_whose_classes_are_not_the_outputs_are_refused(labels: Array) -> None:
    with pytest.raises(MetricError) as error:
        scored("miou", np.stack([number == MAP for number in range(3)], axis=1).astype(np.float32), labels)
    assert error.value.fix


def test_the_baseline_of_mean_iou_is_that_of_the_commonest_class_everywhere() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10]).reshape(10, 10)
    constant = np.zeros((10, 3, 10), np.float32)
    constant[:, 0] = 1
    measured = scored("miou", constant, labels)
    assert measured.baseline == pytest.approx(measured.value) == pytest.approx(0.6 / 3)


@pytest.mark.parametrize("name", ["mae", "rmse"])
def test_grey_levels_are_not_compared_with_values_from_0_to_1(name: str) -> None:
    mask = RANDOM.integers(0, 2, (9, 1, 8, 8))
    output = (mask * 0.9).astype(np.float32)
    for grey in (mask.astype(np.uint8) * 255, mask * 255.0):
        with pytest.raises(MetricError) as error:
            scored(name, output, grey)
        assert error.value.fix
        assert scored(name, output * 255, grey).value > 1
    assert scored(name, output, mask.astype(bool)).value < 0.1


def test_samples_without_a_class_and_with_several_classes_are_named() -> None:
    unlabelled, several = LABELS.copy(), RANDOM.integers(0, 2, LOGITS.shape)
    unlabelled[:9] = -1
    for labels in (unlabelled, several):
        with pytest.raises(MetricError) as error:
            scored("top1", LOGITS, labels)
        assert error.value.fix


def test_classes_with_axes_of_one_place_are_judged_by_labels_per_sample() -> None:
    rows = np.eye(3, dtype=np.float32)[[0, 2, 1, 1]].reshape(4, 3, 1, 1)
    labels = np.array([0, 2, 1, 0])
    top1 = metric_named("top1")
    assert top1 is not None
    assert output_for(top1, {"y": rows}, labels) == "y"
    assert scores(top1, {"y": rows}, "y", labels).value == 0.75


def test_a_single_number_as_labels_is_refused_with_a_fix() -> None:
    top1 = metric_named("top1")
    assert top1 is not None
    with pytest.raises(MetricError) as refused:
        output_for(top1, {"y": np.eye(3, dtype=np.float32)[:1]}, np.array(1))
    assert refused.value.fix
