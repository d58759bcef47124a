"""Each kind of output has its own requirement: what a user of it would notice."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.accuracy.limits import COARSE_LIMITS, Criteria
from pytest_mnnquant.checks.accuracy.part_variation import PartEvidence
from pytest_mnnquant.findings.finding import FAILED, PASSED
from tests.golden_text import check_golden
from tests.synthetic_evidence import codes

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
SAMPLES = 40


def noise(array: Array, size: float) -> Array:
    return (array + size * np.random.default_rng(1).standard_normal(array.shape)).astype(np.float32)


def outcome(reference: Array, output: Array, **values: Any) -> str:
    evidence = AccuracyEvidence(
        {"output": reference.astype(np.float32)}, {"output": output.astype(np.float32)}, **values
    )
    return check_accuracy(evidence, Criteria()).outcome


def steps_of_text() -> tuple[Array, Array]:
    """CTC scores [samples, steps, 11], mostly of the blank, and the classes."""
    best = np.where(RANDOM.random((SAMPLES, 24)) < 0.7, 0, RANDOM.integers(1, 11, (SAMPLES, 24)))
    return noise(12 * np.eye(11, dtype=np.float32)[best], 1.0), best


def test_classes_that_flip_fail_although_the_scores_look_alike() -> None:
    reference, best = steps_of_text()
    wrong = (best > 0) & (RANDOM.random(best.shape) < 0.22)
    output = np.where(wrong[..., None] & (np.arange(11) == 0), 13, reference)
    evidence = AccuracyEvidence({"output": reference}, {"output": output.astype(np.float32)})
    result = check_accuracy(evidence, Criteria(usual=COARSE_LIMITS))
    assert codes(result) == ["MNQ702"]
    check_golden("accuracy/best-classes-differ", result.findings[0].message)
    assert outcome(reference, noise(reference, 1.2)) == PASSED


def test_probabilities_are_judged_by_their_answers() -> None:
    reference = np.where(RANDOM.random((SAMPLES, 10, 10)) > 0.95, 0.97, 0.01)
    assert outcome(reference, np.where(reference > 0.5, 0.8 + 0.2 * RANDOM.random(reference.shape), 0.01)) == PASSED
    assert outcome(reference, np.minimum(reference, 0.45)) == FAILED


def peaks(places: Array) -> Array:
    rows, columns = np.mgrid[:24, :24]
    return np.asarray(np.exp(-((rows - places[..., :1, None]) ** 2 + (columns - places[..., 1:, None]) ** 2) / 4.5))


def test_heat_maps_are_judged_by_their_peaks() -> None:
    places = RANDOM.integers(5, 19, (SAMPLES, 3, 2))
    reference = peaks(places)
    assert outcome(reference, 0.8 * reference + 0.1 + 0.01 * RANDOM.standard_normal(reference.shape)) == PASSED
    moved = np.where((np.arange(SAMPLES) % 2 == 0)[:, None, None], places + 3, places)
    result = check_accuracy(
        AccuracyEvidence({"output": reference.astype(np.float32)}, {"output": peaks(moved).astype(np.float32)}),
        Criteria(),
    )
    assert codes(result) == ["MNQ702"]
    check_golden("accuracy/peaks-moved", result.findings[0].message)


def test_maps_of_a_picture_need_their_psnr_unless_they_are_probabilities() -> None:
    reference = RANDOM.random((SAMPLES, 1, 16, 16)).cumsum(3) / 16
    inputs = {"picture": RANDOM.random((SAMPLES, 3, 16, 16)).astype(np.float32)}
    span = float(np.ptp(reference))
    assert outcome(reference, noise(reference, 0.015 * span), inputs=inputs) == PASSED
    worse = noise(reference, 0.03 * span)
    assert outcome(reference, worse, inputs=inputs) == FAILED
    assert outcome(reference, worse) == PASSED
    parts = PartEvidence(probabilities=frozenset({"output"}))
    assert outcome(reference, worse, inputs=inputs, parts=parts) == PASSED


def test_a_forecast_is_judged_beyond_the_last_value() -> None:
    waves = 3 * np.sin(np.arange(30) / 5 + RANDOM.uniform(0, 6, (SAMPLES, 1)))
    past, change = RANDOM.normal(0, 10, (SAMPLES, 1)) + waves[:, :24], waves[:, 24:] - waves[:, 23:24]
    reference, inputs = past[:, -1:] + change, {"past": past.astype(np.float32)}
    assert outcome(reference, noise(reference, 0.05 * change.std()), inputs=inputs) == PASSED
    assert outcome(reference, noise(reference, 0.15 * change.std()), inputs=inputs) == FAILED
    assert outcome(reference, noise(reference, 0.15 * change.std())) == PASSED


@pytest.mark.parametrize(("size", "expected"), [(0.02, PASSED), (0.06, FAILED)])
def test_unit_vectors_are_compared_by_their_angles(size: float, expected: str) -> None:
    """Noise that other outputs may not have: 14 dB; and more."""
    vectors = RANDOM.standard_normal((SAMPLES, 96))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert outcome(vectors, noise(vectors, size)) == expected
    assert outcome(3 * vectors, noise(3 * vectors, 3 * size)) == FAILED


def test_of_one_number_the_order_is_enough_if_few_samples_are_far_off() -> None:
    scores = np.sort(RANDOM.standard_normal((200, 1)), 0)
    scores[-6:] = np.arange(10, 16)[:, None]
    assert outcome(scores, np.minimum(scores, 5 + 0.01 * scores)) == PASSED
    assert outcome(scores, noise(scores, 0.5)) == FAILED


def test_a_cosine_that_the_user_requires_is_required_of_peaks_too() -> None:
    reference = peaks(RANDOM.integers(5, 19, (SAMPLES, 3, 2))).astype(np.float32)
    evidence = AccuracyEvidence({"output": reference}, {"output": noise(reference, 0.05)})
    assert check_accuracy(evidence, Criteria()).outcome == PASSED
    assert check_accuracy(evidence, Criteria(min_cosine=0.999)).outcome == FAILED


def test_of_one_probability_the_answers_count_too() -> None:
    positive = np.arange(2000) < 100
    scores = np.where(positive, RANDOM.uniform(0.85, 0.99, 2000), RANDOM.uniform(0.001, 0.05, 2000))[:, None]
    assert outcome(scores, np.where(positive[:, None], 0.06 + 0.05 * scores, scores)) == FAILED
    assert outcome(scores, np.where(positive[:, None], scores - 0.05, scores)) == PASSED


def test_probabilities_of_sure_classes_are_no_unit_vectors() -> None:
    best = RANDOM.integers(0, 41, 2050)
    logits = 14 * np.eye(41)[best] + RANDOM.normal(0, 1, (2050, 41))
    exponents = np.exp(logits)
    exact = exponents / exponents.sum(1, keepdims=True)
    spoilt = np.where((best == 7)[:, None], np.roll(exact, 1, 1), exact)
    assert outcome(exact, spoilt) == FAILED
    assert outcome(exact, noise(exact, 0.004)) == PASSED


def test_a_classifier_of_many_samples_may_be_coarse_if_it_keeps_their_classes() -> None:
    logits = RANDOM.normal(0, 1, (200, 10)) + 12 * np.eye(10)[RANDOM.integers(0, 10, 200)]
    clipped = np.minimum(logits, 8) + RANDOM.normal(0, 0.3, logits.shape)
    assert (clipped.argmax(1) == logits.argmax(1)).all()
    assert outcome(logits, clipped) == PASSED
    assert outcome(logits[:50], clipped[:50]) == FAILED


def test_the_objectness_of_candidates_may_not_be_frozen() -> None:
    objects = RANDOM.random((SAMPLES, 30, 1)) < 0.1
    objectness = np.where(objects, 0.9, 0.02) + RANDOM.uniform(0, 0.05, objects.shape)
    reference = np.concatenate([objectness, RANDOM.uniform(0.2, 1, (SAMPLES, 30, 3))], 2)
    dead = np.concatenate([np.broadcast_to(objectness.mean(0), objectness.shape), reference[..., 1:]], 2)
    parts = PartEvidence(probabilities=frozenset({"output"}))
    assert outcome(reference, dead, parts=parts) == FAILED
    assert outcome(reference, noise(reference, 0.02), parts=parts) == PASSED
