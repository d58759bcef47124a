"""The accuracy check: each fault in the outputs gives its rule, health gives none."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.accuracy.causes import KnownCauses
from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, Result
from pytest_mnnquant.mnnfile.int8_faults import Int8Faults
from tests.golden_text import check_golden
from tests.results import measured
from tests.synthetic_evidence import certain, codes

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.standard_normal((100, 5)).astype(np.float32)
LABELS = LOGITS.argmax(1)
BOXES = RANDOM.standard_normal((100, 3, 4)).astype(np.float32)
SCORE = RANDOM.standard_normal((100, 1)).astype(np.float32)


def evidence(output: Array, reference: Array = LOGITS, labels: Array | None = LABELS, **more: Any) -> AccuracyEvidence:
    return AccuracyEvidence({"y": reference}, {"y": output}, labels, **more)


def check(found: AccuracyEvidence, max_drop: float | None = 0.01, min_cosine: float = 0.99, **more: Any) -> Result:
    if found.labels is None:
        max_drop = None
    return check_accuracy(found, Criteria(max_drop=max_drop, min_cosine=min_cosine, **more))


def wrong(count: int) -> Array:
    """Outputs in which the first `count` samples have another largest class."""
    out = LOGITS.copy()
    out[np.arange(count), (LABELS[:count] + 1) % 5] = 9
    return out


def noisy(reference: Array, size: float) -> Array:
    return (reference + size * np.random.default_rng(1).standard_normal(reference.shape)).astype(np.float32)


def test_small_noise_passes_with_its_figures() -> None:
    result = check(evidence(noisy(LOGITS, 1e-4)))
    assert result.outcome == PASSED
    assert (
        measured(AccuracyMetrics, result).top1,
        measured(AccuracyMetrics, result).float_top1,
        measured(AccuracyMetrics, result).samples,
    ) == (1.0, 1.0, 100)
    assert measured(AccuracyMetrics, result).outputs["y"].sqnr_db > 60


@pytest.mark.parametrize(("lost", "allowed", "outcome"), [(1, 0.01, PASSED), (2, 0.01, FAILED), (2, 0.02, PASSED)])
def test_the_drop_of_top_1_is_what_counts_where_there_are_labels(lost: int, allowed: float, outcome: str) -> None:
    result = check(evidence(wrong(lost)), allowed, min_cosine=1.0)
    assert result.outcome == outcome
    assert certain(result) == ([] if outcome == PASSED else ["MNQ701"])
    assert measured(AccuracyMetrics, result).top1_drop == pytest.approx(lost / 100)


def test_a_gain_is_no_drop() -> None:
    reference = wrong(10)
    result = check(evidence(LOGITS, reference), 0.0)
    assert result.outcome == PASSED
    assert measured(AccuracyMetrics, result).top1_drop == pytest.approx(-0.1)


def test_with_no_drop_allowed_one_lost_sample_fails() -> None:
    assert codes(check(evidence(wrong(1)), 0.0)) == ["MNQ701"]


def test_without_labels_the_cosine_counts() -> None:
    assert check(evidence(noisy(LOGITS, 0.01), labels=None)).outcome == PASSED
    assert codes(check(evidence(noisy(LOGITS, 0.5), labels=None))) == ["MNQ702"]
    assert check(evidence(noisy(LOGITS, 0.5), labels=None), min_cosine=0.5).outcome == PASSED


@pytest.mark.parametrize(
    "labels",
    [LABELS + 0.5, LABELS + 5, np.eye(5)[LABELS] / 2, np.eye(6)[LABELS], LABELS.astype(str)],
    ids=["real numbers", "more classes than outputs", "no one-hot rows", "rows of other classes", "text"],
)
def test_labels_that_are_no_classes_of_an_output_leave_it_open_and_to_the_cosine(labels: Array) -> None:
    similar = check(evidence(noisy(LOGITS, 0.01), labels=labels), None)
    assert similar.outcome == INCONCLUSIVE
    assert codes(similar) == ["MNQ720"]
    assert measured(AccuracyMetrics, similar).top1 is None
    unlike = check(evidence(noisy(LOGITS, 0.5), labels=labels), None)
    assert unlike.outcome == FAILED
    assert codes(unlike) == ["MNQ720", "MNQ702"]


@pytest.mark.parametrize(("classes", "expected"), [(0, []), (5, []), (3, ["MNQ720"]), (6, ["MNQ720"])])
def test_folders_of_some_classes_do_not_number_those_of_the_output(classes: int, expected: list[str]) -> None:
    result = check(evidence(LOGITS, labels=LABELS % 3, classes=classes), None)
    assert [code for code in codes(result) if code == "MNQ720"] == expected


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ("drop", {"max_drop": 0.01}),
        ("ratio", {"max_drop": None, "min_ratio": 0.9}),
        ("drop-and-float", {"max_drop": 0.1, "min_float": 0.9}),
    ],
)
def test_a_limit_that_was_asked_is_not_dropped_for_labels_that_do_not_fit(named: str, asked: dict[str, Any]) -> None:
    result = check(evidence(noisy(LOGITS, 0.01), labels=LABELS + 1), **asked)
    assert result.outcome == FAILED
    (finding,) = result.findings
    assert finding.code == "MNQ721"
    check_golden(f"accuracy/a-limit-that-was-asked-is-not-dropped-{named}", finding.message)
    assert "labels - 1" in finding.fix


@pytest.mark.parametrize(
    "form",
    [LABELS.astype(np.float64), LABELS[:, None], np.eye(5)[LABELS], np.eye(5, dtype=bool)[LABELS]],
    ids=["float64", "a column", "one-hot", "one-hot truth values"],
)
def test_class_numbers_are_taken_in_every_form(form: Array) -> None:
    expected = measured(AccuracyMetrics, check(evidence(wrong(2)), 0.02)).task
    assert measured(AccuracyMetrics, check(evidence(wrong(2), labels=form), 0.02)).task == expected


def test_an_output_of_class_numbers_is_judged_by_its_labels() -> None:
    """A model that ends in an arg max."""
    found = LABELS[:, None]
    assert measured(AccuracyMetrics, check(evidence(found, found))).top1 == 1
    other = found.copy()
    other[:30] = (other[:30] + 1) % 5
    assert codes(check(evidence(other, found))) == ["MNQ701"]


def test_an_output_of_one_element_is_judged_by_its_noise() -> None:
    """Its cosine is 1 or -1, whatever the error."""
    assert check(evidence(noisy(SCORE, 0.01), SCORE, None)).outcome == PASSED
    assert codes(check(evidence(noisy(SCORE, 0.5), SCORE, None))) == ["MNQ702"]
    assert codes(check(evidence(noisy(SCORE + 100, 0.5), SCORE + 100, None))) == ["MNQ702"]


def several(boxes: Array, output: Array = LOGITS) -> AccuracyEvidence:
    reference = {"boxes": BOXES, "y": LOGITS}
    return AccuracyEvidence(reference, {"boxes": boxes, "y": output}, LABELS)


def test_outputs_that_the_labels_are_not_for_are_judged_too() -> None:
    assert check(several(noisy(BOXES, 0.01))).outcome == PASSED
    assert certain(check(several(noisy(BOXES, 2.0)))) == ["MNQ702"]
    assert codes(check(several(noisy(BOXES, 2.0), wrong(50)))) == ["MNQ701", "MNQ702"]


def spoiled(value: float) -> Array:
    out = LOGITS.copy()
    out[3, 2] = value
    return out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e30])
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "no labels"])
def test_numbers_that_are_not_finite_fail(value: float, labels: Array | None) -> None:
    assert codes(check(evidence(spoiled(value), labels=labels), 1.0, -1.0)) == ["MNQ703"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "no labels"])
def test_a_float_model_of_broken_numbers_is_no_reference(value: float, labels: Array | None) -> None:
    assert codes(check(evidence(LOGITS, spoiled(value), labels), 1.0, -1.0)) == ["MNQ707"]


def test_an_output_that_does_not_depend_on_the_input_fails() -> None:
    assert codes(check(evidence(np.tile(LOGITS[:1], (100, 1))), 1.0, -1.0)) == ["MNQ704"]
    assert check(evidence(LOGITS[:1], LOGITS[:1], LABELS[:1])).outcome == PASSED


def test_a_float_model_whose_output_does_not_depend_on_the_input_shows_nothing() -> None:
    constant = np.ones((100, 5), np.float32)
    result = check(evidence(constant, constant, None))
    assert result.outcome == INCONCLUSIVE
    assert codes(result) == ["MNQ003"]


@pytest.mark.parametrize(("flipped", "found"), [(1, []), (60, ["MNQ702"])])
def test_an_output_of_integers_without_labels_is_compared_one_by_one(flipped: int, found: list[str]) -> None:
    other = LABELS.copy()
    other[:flipped] += 1
    assert codes(check(evidence(other[:, None], LABELS[:, None], None))) == found


def test_a_missing_output_or_one_of_another_shape_fails() -> None:
    assert codes(check(evidence(LOGITS[:, :4]))) == ["MNQ705"]
    assert codes(check(evidence(LOGITS[:50]))) == ["MNQ705"]
    missing = dataclasses.replace(evidence(LOGITS), outputs={"z": LOGITS})
    assert codes(check(missing)) == ["MNQ705"]


def test_nothing_compared_is_a_failure() -> None:
    assert codes(check(AccuracyEvidence({}, {}))) == ["MNQ001"]
    assert codes(check(evidence(LOGITS[:0], LOGITS[:0], None))) == ["MNQ001"]


def test_a_drifted_model_is_named_as_the_cause() -> None:
    (finding,) = check(evidence(wrong(50), suspects=KnownCauses(drift=2.5))).findings
    assert finding.cause_id == "calibration-moved-batchnorm"
    assert "2.50" in finding.cause_text
    assert "eval mode" in finding.fix
    (finding,) = check(evidence(wrong(50), suspects=KnownCauses(drift=0.1))).findings
    assert finding.cause is None
    (finding,) = check(evidence(wrong(50), suspects=KnownCauses(faults=Int8Faults(clamping=("/Add_3",))))).findings
    assert finding.cause_id == "add-relu-clamps"
    assert "/Add_3" in finding.cause_text


@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "no labels"])
def test_a_copy_with_exact_pools_is_judged_and_the_host_is_warned_of(labels: Array | None) -> None:
    """What this host computes is ruined; what ARM computes is what counts."""
    found = evidence(noisy(LOGITS, 1e-3), labels=labels, as_run={"y": wrong(60)}, pools=("pool1", "pool2"))
    result = check(found)
    assert result.outcome == PASSED
    assert certain(result) == ["MNQ710"]
    note = result.findings[-1]
    assert note.layer == "pool1, pool2"
    assert ("0.4000" in note.message) == (labels is not None)
    ruined = dataclasses.replace(found, outputs={"y": wrong(60)})
    assert check(ruined).outcome == FAILED


def test_a_host_of_broken_numbers_does_not_break_the_check() -> None:
    found = evidence(noisy(LOGITS, 1e-3), as_run={"y": spoiled(np.inf)}, pools=("pool",))
    assert certain(check(found)) == ["MNQ710"]


def test_outputs_that_are_empty_in_both_models_are_left_out() -> None:
    empty = np.empty((100, 0, 6), np.float32)
    for output, expected in ((LOGITS, ["MNQ730"]), (wrong(50), ["MNQ701"])):
        assert codes(check(AccuracyEvidence({"d": empty, "y": LOGITS}, {"d": empty, "y": output}, LABELS))) == expected
    assert codes(check(AccuracyEvidence({"d": empty}, {"d": empty}))) == ["MNQ001"]
    filled = np.zeros((100, 1, 6), np.float32)
    assert codes(check(AccuracyEvidence({"d": empty, "y": LOGITS}, {"d": filled, "y": LOGITS}))) == ["MNQ705"]


def test_an_output_of_one_element_that_does_not_vary_is_not_judged_by_its_noise() -> None:
    constant = (3 + 1e-5 * SCORE).astype(np.float32)
    assert codes(check(evidence(noisy(constant, 0.002), constant, None))) == ["MNQ003"]
    assert codes(check(evidence(noisy(constant, 1.0), constant, None))) == ["MNQ702"]


def test_identical_samples_decide_nothing_and_blame_no_model() -> None:
    chooser = np.random.default_rng(0)
    reference = np.repeat(chooser.standard_normal((1, 40)), 8, 0).astype(np.float32)
    reference[3:] *= np.float32(1 + 2e-7)  # MNN rounds otherwise at another place of a batch.
    output = np.repeat(reference[:1], 8, 0)
    result = check_accuracy(
        AccuracyEvidence({"y": reference}, {"y": output}, inputs={"x": np.ones((8, 3))}), Criteria()
    )
    assert [finding.code for finding in result.findings] == ["MNQ003"]
    assert result.outcome == INCONCLUSIVE
