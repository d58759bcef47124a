"""The task metric's verdict: drop, ratio and floor, and how sure they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, Result
from pytest_mnnquant.metrics.task import TaskMetric, metric_named
from tests.golden_text import check_golden
from tests.results import known, measured
from tests.synthetic_evidence import codes

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
    check_golden("accuracy/a-clear-drop-fails-with-its-figures", finding.message)
    task = known(measured(AccuracyMetrics, result).task)
    assert (task.lost, task.won) == (50, 0)
    assert task.drop == pytest.approx(0.05)
    assert 0.03 < task.drop_low < 0.05 < task.drop_high < 0.07
    assert known(task.p_value) < 1e-10


def test_many_flips_either_way_are_no_drop_but_leave_it_open() -> None:
    """A point of 100 flips each way on 1,000 samples: nothing lost, but a point could be."""
    both = wrong(100, 100)
    reference = wrong(100)
    result = check(both, reference)
    assert result.outcome == PASSED
    assert codes(result) == ["MNQ730"]
    check_golden("accuracy/many-flips-either-way-are-no-drop-but-leave", result.findings[0].message)
    assert known(measured(AccuracyMetrics, result).task).samples_needed == pytest.approx(
        0.2 * (1.645 / 0.01) ** 2, abs=2
    )
    assert check(both, reference, strict=True).outcome == INCONCLUSIVE


@pytest.mark.parametrize(("lost", "usual", "strict"), [(5, PASSED, PASSED), (12, FAILED, INCONCLUSIVE)])
def test_strictly_the_bound_decides(lost: int, usual: str, strict: str) -> None:
    limit = 0.02 if lost == 5 else 0.01
    assert check(wrong(lost), max_drop=limit).outcome == usual
    assert check(wrong(lost), max_drop=limit, strict=True).outcome == strict


def test_a_failure_within_the_noise_says_so() -> None:
    (finding,) = check(wrong(12)).findings
    assert finding.code == "MNQ701"
    check_golden("accuracy/a-failure-within-the-noise-says-so", finding.message)


def test_the_ratio_is_mlperfs_form() -> None:
    """99 % of a float model at 0.8 is 0.792: a drop of 8 in 1,000 is too much, though below a point."""
    reference, output = wrong(200), wrong(209)
    assert check(output, reference, min_ratio=0.98).outcome == PASSED
    result = check(output, reference, min_ratio=0.99)
    assert codes(result) == ["MNQ701"]
    check_golden("accuracy/the-ratio-is-mlperfs-form", result.findings[0].message)
    assert known(measured(AccuracyMetrics, result).task).ratio == pytest.approx(0.791 / 0.8)


def test_asked_for_a_ratio_the_usual_drop_is_not_judged() -> None:
    assert check(wrong(50), min_ratio=0.9).outcome == PASSED
    assert codes(check(wrong(50), min_ratio=0.9, max_drop=0.01)) == ["MNQ701"]


def test_a_float_model_below_its_floor_is_told_apart() -> None:
    result = check(wrong(200), wrong(200), min_float=0.9)
    assert codes(result) == ["MNQ708"]
    check_golden("accuracy/a-float-model-below-its-floor-is-told-apart", result.findings[0].message)
    check_golden("accuracy/a-float-model-below-its-floor-is-told-apart-2", result.findings[0].cause_text)
    assert result.findings[0].cause_id == "float-model-at-fault"
    assert check(wrong(50), wrong(50), min_float=0.9).outcome == PASSED


def test_of_an_error_a_rise_is_what_is_lost() -> None:
    labels = POINTS
    output = POINTS + np.float32(0.2)
    reference = POINTS + np.float32(0.1)
    kinds: dict[str, Any] = {"reference": reference, "labels": labels, "metric": "mae"}
    assert check(output, **kinds, max_drop=0.11).outcome == PASSED
    result = check(output, **kinds, max_drop=0.05)
    assert codes(result) == ["MNQ701"]
    check_golden("accuracy/of-an-error-a-rise-is-what-is-lost", result.findings[0].message)
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
    check_golden("accuracy/a-metric-that-does-not-fit-is-an-error-of-its", result.findings[0].message)


def test_of_a_figure_of_sums_bounds_are_drawn() -> None:
    labels = RANDOM.integers(0, 3, (80, 6, 6))
    exact = np.eye(3, dtype=np.float32)[labels].transpose(0, 3, 1, 2)
    worse = exact.copy()
    worse[:40, :, :3] = worse[:40, ::-1, :3]
    task = known(measured(AccuracyMetrics, check(worse, exact, labels, "miou")).task)
    assert task.drop_low < task.drop < task.drop_high
    assert task.p_value is None


def test_of_a_metric_of_ones_own_the_direction_is_the_callables() -> None:
    def worst(outputs: dict[str, Array], labels: Array | None) -> Array:
        return np.asarray(np.abs(outputs["y"] - labels).max(1))

    metric = TaskMetric("m.py:worst", "worst", is_share=False, lower_is_better=True, call=worst)
    evidence = AccuracyEvidence({"y": POINTS}, {"y": POINTS + np.float32(0.3)}, POINTS)
    result = check_accuracy(evidence, Criteria(metric=metric, max_drop=0.1, min_cosine=-1.0))
    assert codes(result) == ["MNQ701"]
    check_golden("accuracy/of-a-metric-of-ones-own-the-direction", result.findings[0].message)


def test_labels_that_a_constant_answers_as_well_say_nothing() -> None:
    """Labels of other samples: the float model is at chance, and so is a drop. Likeness judges."""
    labels = np.random.default_rng(5).permutation(LABELS)
    evidence = AccuracyEvidence({"y": LOGITS}, {"y": wrong(300)}, np.where(labels < 2, labels, 0))
    result = check_accuracy(evidence, Criteria())
    assert codes(result) == ["MNQ709", "MNQ702"]
    check_golden("accuracy/labels-that-a-constant-answers-as-well-say", result.findings[0].message)
    assert measured(AccuracyMetrics, result).task is None
    same = AccuracyEvidence({"y": LOGITS}, {"y": LOGITS}, np.where(labels < 2, labels, 0))
    assert check_accuracy(same, Criteria()).outcome == PASSED


def test_the_floor_is_judged_even_where_a_drop_says_nothing() -> None:
    labels = np.where(np.random.default_rng(5).permutation(LABELS) < 2, LABELS, 0)
    evidence = AccuracyEvidence({"y": LOGITS}, {"y": LOGITS}, labels)
    assert "MNQ708" in codes(check_accuracy(evidence, Criteria(min_float=0.7)))
    result = check_accuracy(evidence, Criteria(min_ratio=0.99))
    assert "MNQ723" in codes(result)
    check_golden("accuracy/the-floor-is-judged-even-where-a-drop-says", result.findings[0].message)


@pytest.mark.parametrize("limit", ["min_ratio", "min_float", "max_drop"])
def test_limits_that_need_labels_fail_without_them(limit: str) -> None:
    result = check_accuracy(AccuracyEvidence({"y": LOGITS}, {"y": LOGITS}), Criteria(**{limit: 0.9}))  # type: ignore[arg-type]
    assert codes(result) == ["MNQ723"]
    check_golden(f"accuracy/without-labels-{limit}", result.findings[0].message)


def own(call: Any, labels: Array = LABELS, **more: Any) -> Result:
    metric = TaskMetric("m.py:f", "f", is_share=False, call=call)
    return check_accuracy(AccuracyEvidence({"y": LOGITS}, {"y": wrong(50)}, labels), Criteria(metric=metric, **more))


def test_a_metric_that_fails_on_some_samples_has_no_bounds() -> None:
    def picky(outputs: dict[str, Array], labels: Array | None) -> float:
        assert labels is not None
        if len(np.unique(labels, axis=0)) < 10 or len(set(outputs["y"][:, 0])) < 900:
            raise ValueError("too few different samples")
        return float((outputs["y"].argmax(1) == labels).mean())

    result = own(picky, max_drop=0.5)
    assert result.outcome == PASSED
    assert codes(result) == ["MNQ730"]
    check_golden("accuracy/a-metric-that-fails-on-some-samples", result.findings[0].message)
    assert own(picky, max_drop=0.01).outcome == FAILED


def test_a_metric_of_ones_own_decides_about_all_outputs() -> None:
    assert own(lambda outputs, labels: outputs["y"].argmax(1) == labels, max_drop=1.0).outcome == PASSED


def test_labels_of_no_number_are_told() -> None:
    labels = POINTS.copy()
    labels[3] = np.nan
    assert codes(check(POINTS, POINTS, labels, "mae", max_drop=1.0))[0] == "MNQ721"


def test_an_error_that_is_gone_is_no_loss() -> None:
    assert check(POINTS, POINTS + np.float32(0.1), POINTS, "mae", min_ratio=0.99).outcome == PASSED


def test_flips_of_an_error_are_counted_the_right_way_round() -> None:
    def misses(outputs: dict[str, Array], labels: Array | None) -> Array:
        return np.asarray(outputs["y"].argmax(1) != labels)

    metric = TaskMetric("m.py:f", "f", is_share=False, lower_is_better=True, call=misses)
    evidence = AccuracyEvidence({"y": LOGITS}, {"y": wrong(50)}, LABELS)
    (finding,) = check_accuracy(evidence, Criteria(metric=metric, max_drop=0.01)).findings
    check_golden("accuracy/flips-of-an-error-are-counted-the-right-way", finding.message)


def test_beside_scores_the_class_itself_does_not_confuse() -> None:
    evidence = AccuracyEvidence({"s": LOGITS, "c": LABELS}, {"s": wrong(50), "c": wrong(50).argmax(1)}, LABELS)
    assert codes(check_accuracy(evidence, Criteria()))[0] == "MNQ701"
