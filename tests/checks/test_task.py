"""The task metric's verdict: drop, ratio and floor, and how sure they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.accuracy import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.criteria import Criteria
from pytest_mnnquant.checks.finding import FAILED, INCONCLUSIVE, PASSED, Result
from pytest_mnnquant.metrics.task import TaskMetric, metric_named
from tests.evidence import codes

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.standard_normal((1000, 10)).astype(np.float32)
LABELS = LOGITS.argmax(1)
POINTS = RANDOM.standard_normal((300, 2)).astype(np.float32)


def wrong(count: int, start: int = 0) -> Array:
    out = LOGITS.copy()
    rows = np.arange(start, start + count)
    out[rows, (LABELS[rows] + 1) % 10] = 9
    return out


def check(
    output: Array, reference: Array = LOGITS, labels: Array = LABELS, metric: str = "top1", **more: Any
) -> Result:
    chosen = metric_named(metric)
    assert chosen is not None
    evidence = AccuracyEvidence({"y": reference}, {"y": output}, labels)
    return check_accuracy(evidence, Criteria(metric=chosen, min_cosine=-1.0, **more))


def test_a_clear_drop_fails_with_its_figures() -> None:
    result = check(wrong(50))
    (finding,) = result.findings
    assert result.outcome == FAILED
    assert "top-1 falls from 1.0000 (float) to 0.9500: a drop of 0.0500, 0.01 allowed" in finding.message
    assert "50 were right and are wrong now, 0 the reverse" in finding.message
    task = result.metrics["task"]
    assert (task["lost"], task["won"], task["drop"]) == (50, 0, pytest.approx(0.05))
    assert 0.03 < task["drop_low"] < 0.05 < task["drop_high"] < 0.07
    assert task["p_value"] < 1e-10


def test_many_flips_either_way_are_no_drop_but_leave_it_open() -> None:
    """A point of 100 flips each way on 1,000 samples: nothing lost, but a point could be."""
    both = wrong(100, 100)
    reference = wrong(100)
    result = check(both, reference)
    assert result.outcome == PASSED
    assert codes(result) == ["MNQ730"]
    assert "samples like these could" in result.findings[0].message
    assert result.metrics["task"]["samples_needed"] == pytest.approx(0.2 * (1.645 / 0.01) ** 2, abs=2)
    assert check(both, reference, strict=True).outcome == INCONCLUSIVE


@pytest.mark.parametrize(("lost", "usual", "strict"), [(5, PASSED, PASSED), (12, FAILED, INCONCLUSIVE)])
def test_strictly_the_bound_decides(lost: int, usual: str, strict: str) -> None:
    limit = 0.02 if lost == 5 else 0.01
    assert check(wrong(lost), max_drop=limit).outcome == usual
    assert check(wrong(lost), max_drop=limit, strict=True).outcome == strict


def test_a_failure_within_the_noise_says_so() -> None:
    (finding,) = check(wrong(12)).findings
    assert finding.code == "MNQ701"
    assert "1,000 samples can't tell" in finding.message


def test_the_ratio_is_mlperfs_form() -> None:
    """99 % of a float model at 0.8 is 0.792: a drop of 8 in 1,000 is too much, though below a point."""
    reference, output = wrong(200), wrong(209)
    assert check(output, reference, min_ratio=0.98).outcome == PASSED
    result = check(output, reference, min_ratio=0.99)
    assert codes(result) == ["MNQ701"]
    assert "0.7910 is 0.9888 of the float model's 0.8000, at least 0.99 wanted" in result.findings[0].message
    assert result.metrics["task"]["ratio"] == pytest.approx(0.791 / 0.8)


def test_asked_for_a_ratio_the_usual_drop_is_not_judged() -> None:
    assert check(wrong(50), min_ratio=0.9).outcome == PASSED
    assert codes(check(wrong(50), min_ratio=0.9, max_drop=0.01)) == ["MNQ701"]


def test_a_float_model_below_its_floor_is_told_apart() -> None:
    result = check(wrong(200), wrong(200), min_float=0.9)
    assert codes(result) == ["MNQ708"]
    assert "top-1 of the float model is 0.8000, at least 0.9 wanted" in result.findings[0].message
    assert "before anything is quantized" in result.findings[0].cause
    assert check(wrong(50), wrong(50), min_float=0.9).outcome == PASSED


def test_of_an_error_a_rise_is_what_is_lost() -> None:
    labels = POINTS
    output = POINTS + np.float32(0.2)
    reference = POINTS + np.float32(0.1)
    kinds: dict[str, Any] = {"reference": reference, "labels": labels, "metric": "mae"}
    assert check(output, **kinds, max_drop=0.11).outcome == PASSED
    result = check(output, **kinds, max_drop=0.05)
    assert codes(result) == ["MNQ701"]
    assert "mean absolute error rises from 0.1000 (float) to 0.2000: a rise of 0.1000" in result.findings[0].message
    assert codes(check(output, **kinds, min_ratio=0.6)) == ["MNQ701"]
    assert check(output, **kinds, min_ratio=0.49).outcome == PASSED
    assert codes(check(reference, **kinds, max_drop=0.05, min_float=0.05)) == ["MNQ708"]


def test_a_metric_with_a_unit_needs_a_limit() -> None:
    result = check(POINTS, POINTS, POINTS, "mae")
    assert codes(result) == ["MNQ721"]
    assert "--mnn-max-accuracy-drop" in result.findings[0].message


def test_a_metric_that_does_not_fit_is_an_error_of_its_own() -> None:
    result = check(LOGITS, metric="words")
    assert result.outcome == FAILED
    assert codes(result)[0] == "MNQ721"
    assert "--mnn-metric=words: no output fits the labels" in result.findings[0].message


def test_of_a_figure_of_sums_bounds_are_drawn() -> None:
    labels = RANDOM.integers(0, 3, (80, 6, 6))
    exact = np.eye(3, dtype=np.float32)[labels].transpose(0, 3, 1, 2)
    worse = exact.copy()
    worse[:40, :, :3] = worse[:40, ::-1, :3]
    task = check(worse, exact, labels, "miou").metrics["task"]
    assert task["drop_low"] < task["drop"] < task["drop_high"]
    assert "p_value" not in task


def test_of_a_metric_of_ones_own_the_direction_is_the_callables() -> None:
    def worst(outputs: dict[str, Array], labels: Array | None) -> Array:
        return np.asarray(np.abs(outputs["y"] - labels).max(1))

    metric = TaskMetric("m.py:worst", "worst", is_share=False, lower_is_better=True, call=worst)
    evidence = AccuracyEvidence({"y": POINTS}, {"y": POINTS + np.float32(0.3)}, POINTS)
    result = check_accuracy(evidence, Criteria(metric=metric, max_drop=0.1, min_cosine=-1.0))
    assert codes(result) == ["MNQ701"]
    assert "worst rises from 0.0000 (float) to 0.3000" in result.findings[0].message


def test_labels_that_a_constant_answers_as_well_say_nothing() -> None:
    """Labels of other samples: the float model is at chance, and so is a drop. Likeness judges."""
    labels = np.random.default_rng(5).permutation(LABELS)
    evidence = AccuracyEvidence({"y": LOGITS}, {"y": wrong(300)}, np.where(labels < 2, labels, 0))
    result = check_accuracy(evidence, Criteria())
    assert codes(result) == ["MNQ709", "MNQ702"]
    assert "the commonest label alone gives" in result.findings[0].message
    assert "task" not in result.metrics
    same = AccuracyEvidence({"y": LOGITS}, {"y": LOGITS}, np.where(labels < 2, labels, 0))
    assert check_accuracy(same, Criteria()).outcome == PASSED
