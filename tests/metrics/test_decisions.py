"""Scores of classes and probabilities are recognised, and other quantities are not taken for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.decisions import Decision, find_decisions, without_logarithms

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)


def scores(classes: int, shape: tuple[int, ...], margin: float = 8.0) -> tuple[Array, Array]:
    """Logits [samples, ..., classes] with a best class at each place, and these classes."""
    best = RANDOM.integers(0, classes, shape)
    return (RANDOM.normal(0, 1, (*shape, classes)) + margin * np.eye(classes)[best]).astype(np.float32), best


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("classes", [2, 3, 11])
def test_classes_are_compared_where_one_score_is_far_above_the_others(axis: int, classes: int) -> None:
    logits, best = scores(classes, (10, 12, 14), 16.0)
    if classes == 2:
        logits -= logits.mean(-1, keepdims=True)
    reference = np.moveaxis(logits, -1, axis)
    found = find_decisions(reference, -reference)
    assert found is not None
    assert found.kind is Decision.CLASS
    np.testing.assert_array_equal(found.reference, best)
    assert (found.output != best).any()


def test_probabilities_of_classes_are_scores_too() -> None:
    logits, best = scores(5, (30,))
    exponents = np.exp(logits)
    found = find_decisions(exponents / exponents.sum(1, keepdims=True), logits)
    assert found is not None
    np.testing.assert_array_equal(found.reference, best)


def colours() -> Array:
    """Pictures in grey levels: their channels are bright and dark together."""
    light = RANDOM.uniform(0, 255, (10, 1, 12, 12))
    return np.asarray((light + RANDOM.normal(0, 30, (10, 3, 12, 12))).clip(0, 255), np.float32)


@pytest.mark.parametrize(
    "reference",
    [
        scores(11, (10, 32), 1.0)[0],
        colours(),
        np.full((10, 4, 8, 8), [[[0.0]], [[9.0]], [[0.0]], [[0.0]]], np.float32),
        RANDOM.standard_normal((10, 6)).astype(np.float32),
        RANDOM.integers(0, 9, (10, 6)),
        RANDOM.random((10, 8, 8)).astype(np.float32),
        np.zeros((10, 8, 8), np.float32),
    ],
    ids=["unsure", "colours", "one class", "features", "integers", "grey", "nothing"],
)
def test_other_quantities_are_no_decisions(reference: Array) -> None:
    assert find_decisions(reference, reference) is None


def test_probabilities_are_answers_above_and_below_one_half() -> None:
    reference = np.where(RANDOM.random((12, 8, 8)) > 0.8, 0.98, 0.01).astype(np.float32)
    found = find_decisions(reference, 0.4 * reference)
    assert found is not None
    assert found.kind is Decision.THRESHOLD
    assert found.reference.sum() == (reference > 0.5).sum()
    assert found.output.sum() == 0


def test_logits_of_masks_decide_by_their_sign_and_a_flow_does_not() -> None:
    inside = RANDOM.random((16, 1, 32, 32)) < 0.3
    logits = np.where(inside, 5.0, -7.0) + RANDOM.normal(0, 1.6, inside.shape)
    found = find_decisions(logits, -logits)
    assert found is not None
    assert found.kind is Decision.THRESHOLD
    np.testing.assert_array_equal(found.reference, logits > 0)
    for scale in (0.5, 3.0, 9.0, 40.0):
        flow = RANDOM.normal(0, scale, (16, 2, 32, 32))
        assert find_decisions(flow, flow) is None


@pytest.mark.parametrize("channels", [(3, 9), (5,), (1, 3, 5, 7, 9)])
def test_channels_that_are_always_large_are_no_classes(channels: tuple[int, ...]) -> None:
    tokens = RANDOM.normal(0, 1, (16, 50, 256))
    for number, channel in enumerate(channels):
        tokens[..., channel] = 12 - number + RANDOM.normal(0, 3, tokens.shape[:2])
    assert find_decisions(tokens, tokens) is None


def ctc_logits() -> tuple[Array, Array]:
    """Logits [samples, steps, classes] whose blank 0 is the second best wherever it is not the best."""
    best = np.where(RANDOM.random((20, 32)) < 0.7, 0, RANDOM.integers(1, 11, (20, 32)))
    logits = RANDOM.normal(-4, 1, (20, 32, 11)) + 12 * np.eye(11)[best]
    logits[..., 0] = np.where(best == 0, logits[..., 0], 3)
    return logits, best


def test_a_blank_may_be_the_second_best_everywhere() -> None:
    logits, best = ctc_logits()
    for reference in (logits, logits - np.log(np.exp(logits).sum(2, keepdims=True))):
        found = find_decisions(reference, reference)
        assert found is not None
        np.testing.assert_array_equal(found.reference, best)


def test_how_improbable_a_class_is_does_not_matter() -> None:
    logits, _ = ctc_logits()
    logarithms = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    first, second = without_logarithms(logarithms, np.maximum(logarithms, -9))
    assert np.abs(first - second).max() < 2e-3
    assert without_logarithms(logits, logits)[0] is logits


def test_logits_of_float16_are_judged_without_overflow() -> None:
    logits = RANDOM.choice([-1.0, 1.0], (50, 1, 8, 8)) * RANDOM.uniform(20, 30, (50, 1, 8, 8))
    with np.errstate(over="raise"):
        decisions = find_decisions(logits.astype(np.float16), logits.astype(np.float16))
    assert decisions is not None
    assert decisions.kind is Decision.THRESHOLD
