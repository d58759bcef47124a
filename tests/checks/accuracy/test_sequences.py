"""Of models with states, the outputs that are not fed back are judged, and the error over steps is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.checks.accuracy.sequences import error_over_steps, judged_steps, with_error_over_steps
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.measurements.sequences import Sequences

LENGTHS = (120, 20, 4)
STEPS = sum(LENGTHS)
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, STEPS)
SCORES = np.eye(3)[LABELS] + RANDOM.normal(0, 0.05, (STEPS, 3))
STATES = RANDOM.normal(0, 1, (STEPS, 8))
SEQUENCES = Sequences({"h": "h_out"}, LENGTHS)


def evidence(scores: Any = SCORES, states: Any = STATES, labels: Any = LABELS) -> AccuracyEvidence:
    return AccuracyEvidence({"y": SCORES, "h_out": STATES}, {"y": scores, "h_out": states}, labels)


def growing() -> Any:
    """Noise that grows from step to step."""
    step = np.concatenate([np.arange(length) for length in LENGTHS])[:, None]
    return SCORES + RANDOM.normal(0, 1, SCORES.shape) * step / 60


def test_outputs_that_are_fed_back_are_not_judged_unless_all_are() -> None:
    judged = judged_steps(evidence(states=-STATES), SEQUENCES, per_sequence=False)
    assert (list(judged.reference), judged.lengths) == (["y"], LENGTHS)
    assert check_accuracy(judged, Criteria()).outcome == "passed"
    both = judged_steps(evidence(), Sequences({"h": "h_out", "x": "y"}, LENGTHS), per_sequence=False)
    assert list(both.reference) == ["y", "h_out"]


def test_labels_of_sequences_are_judged_by_the_last_step() -> None:
    judged = judged_steps(evidence(), SEQUENCES, per_sequence=True)
    ends = [119, 139, 143]
    np.testing.assert_array_equal(judged.outputs["y"], SCORES[ends])
    np.testing.assert_array_equal(judged.labels, LABELS[ends])
    assert judged.lengths == ()


def test_the_metric_of_steps_is_bounded_by_sequences() -> None:
    spoilt = SCORES.copy()
    spoilt[120:140] = -spoilt[120:140]
    result = check_accuracy(judged_steps(evidence(spoilt), SEQUENCES, False), Criteria(max_drop=0.5))
    task = (metrics_of(AccuracyMetrics, [result]) or AccuracyMetrics()).task
    assert task is not None
    assert task.drop == pytest.approx(20 / STEPS)
    # One of three sequences is lost as a whole, so far more than 20 of 144 independent steps may be.
    assert (task.lost, task.drop_high > 0.4) == (None, True)


def test_the_error_is_shown_at_steps_that_sequences_reach() -> None:
    errors = error_over_steps(evidence().reference, evidence(growing()).outputs, LENGTHS)
    assert [(step.step, step.sequences) for step in errors["y"]] == [(1, 3), (10, 2), (100, 1)]
    assert errors["y"][0].sqnr_db > errors["y"][1].sqnr_db > errors["y"][2].sqnr_db
    assert errors["h_out"][0].sqnr_db == np.inf


def test_a_lost_accuracy_names_an_error_that_grows() -> None:
    scores = growing()
    scores[[0, 120, 140]] += 0.01
    judged = judged_steps(evidence(scores), SEQUENCES, False)
    errors = error_over_steps(judged.reference, judged.outputs, LENGTHS)
    result = with_error_over_steps(check_accuracy(judged, Criteria()), errors)
    (finding,) = [finding for finding in result.findings if finding.code == "MNQ701"]
    assert finding.cause is not None
    assert "error-grows-over-steps" in finding.cause.id
    metrics = metrics_of(AccuracyMetrics, [result])
    assert metrics is not None
    assert metrics.error_over_steps == errors
