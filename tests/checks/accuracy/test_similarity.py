"""Likeness to the float model's outputs: what is asked of each, and what can't be told."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, Result
from tests.golden_text import check_golden
from tests.results import known, measured
from tests.synthetic_evidence import codes

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
SCORES = RANDOM.standard_normal((400, 10)).astype(np.float32)
BOXES = RANDOM.standard_normal((400, 3, 4)).astype(np.float32)


def noisy(reference: Array, size: float) -> Array:
    return (reference + size * np.random.default_rng(1).standard_normal(reference.shape)).astype(np.float32)


def check(outputs: dict[str, Array], **criteria: Any) -> Result:
    reference = {"scores": SCORES, "boxes": BOXES}
    evidence = AccuracyEvidence({name: reference[name] for name in outputs}, outputs)
    return check_accuracy(evidence, Criteria(**criteria))


def test_each_output_is_held_to_its_own_limit() -> None:
    outputs = {"scores": noisy(SCORES, 0.05), "boxes": noisy(BOXES, 0.3)}
    assert codes(check(outputs)) == ["MNQ702"]
    assert "'boxes'" in check(outputs).findings[0].message
    assert check(outputs, min_cosine={"boxes": 0.9}).outcome == PASSED
    assert codes(check(outputs, min_cosine={"boxes": 0.9, "*": 0.9999})) == ["MNQ702"]


def test_a_least_sqnr_is_judged_where_it_is_asked() -> None:
    outputs = {"scores": noisy(SCORES, 0.1)}
    assert check(outputs, min_sqnr=19.0).outcome == PASSED
    result = check(outputs, min_sqnr=21.0)
    assert codes(result) == ["MNQ702"]
    check_golden("accuracy/a-least-sqnr-is-judged-where-it-is-asked", result.findings[0].message)


def test_a_least_agreement_is_judged_where_it_is_asked() -> None:
    outputs = {"scores": noisy(SCORES, 0.1)}
    assert check(outputs, min_agreement=0.5).outcome == PASSED
    result = check(outputs, min_agreement=0.99)
    assert codes(result) == ["MNQ702"]
    check_golden("accuracy/a-least-agreement-is-judged-where-it-is-asked", result.findings[0].message)


def test_agreement_required_of_an_output_without_classes_fails() -> None:
    result = check({"boxes": noisy(BOXES, 0.01)}, min_agreement={"boxes": 0.9})
    assert result.outcome == FAILED
    (finding,) = result.findings
    assert (finding.code, "'boxes'" in finding.message) == ("MNQ723", True)


def test_one_finding_an_output_tells_all_that_it_misses() -> None:
    result = check({"scores": noisy(SCORES, 0.5)}, min_sqnr=30.0, min_agreement=0.99)
    (finding,) = result.findings
    assert all(words in finding.message for words in ("mean cosine", "SQNR", "float model's class"))


def test_strictly_the_bound_of_the_cosine_decides() -> None:
    """Half of the samples are exact, half are at 0.98: the mean is 0.99, give or take."""
    output = SCORES.copy()
    output[::2] = noisy(SCORES, 0.2)[::2]
    cosine = known(measured(AccuracyMetrics, check({"scores": output}, min_cosine=-1.0)).outputs["scores"].cosine)
    assert check({"scores": output}, min_cosine=cosine - 1e-4).outcome == PASSED
    assert codes(check({"scores": output}, min_cosine=cosine - 1e-4)) == ["MNQ730"]
    assert check({"scores": output}, min_cosine=cosine - 1e-4, strict=True).outcome == INCONCLUSIVE
    assert check({"scores": output}, min_cosine=cosine - 0.01, strict=True).outcome == PASSED
    assert check({"scores": output}, min_cosine=cosine + 0.005, strict=True).outcome == FAILED


def test_outputs_in_another_order_are_recognised() -> None:
    first, second = SCORES, noisy(SCORES[::-1], 0.0)
    evidence = AccuracyEvidence({"a": first, "b": second}, {"a": second, "b": first})
    found = check_accuracy(evidence, Criteria()).findings
    check_golden("accuracy/outputs-in-another-order", "\n".join(finding.cause_text for finding in found))
    assert [finding.cause_id for finding in found] == ["outputs-reordered"] * 2
    assert ["'b'" in found[0].cause_text, "'a'" in found[1].cause_text] == [True, True]


@pytest.mark.parametrize("size", [0.0, 1e-9])
def test_rounding_noise_about_a_constant_is_no_evidence(size: float) -> None:
    constant = np.ones((50, 4), np.float32)
    evidence = AccuracyEvidence({"y": constant}, {"y": noisy(constant, size)})
    assert check_accuracy(evidence, Criteria()).outcome == INCONCLUSIVE


def test_a_limit_that_no_output_can_meet_is_told() -> None:
    outputs = {"scores": noisy(SCORES, 0.01)}
    result = check(outputs, min_sqnr={"scors": 60.0})
    assert result.outcome == FAILED
    assert codes(result) == ["MNQ722"]
    check_golden("accuracy/a-limit-that-no-output-can-meet-is-told", result.findings[0].message)
    assert check({"boxes": BOXES}, min_agreement=0.9).outcome == FAILED


def test_a_constant_part_does_not_hide_that_the_rest_is_lost() -> None:
    """Cosine 0.997 between two signals that have nothing but their mean in common."""
    reference = (10 + 0.5 * SCORES).astype(np.float32)
    other = (10 + 0.5 * np.random.default_rng(9).standard_normal(SCORES.shape)).astype(np.float32)
    result = check_accuracy(AccuracyEvidence({"y": reference}, {"y": other}), Criteria())
    assert codes(result) == ["MNQ702"]
    check_golden("accuracy/a-constant-part-does-not-hide-that-the-rest", result.findings[0].message)


def test_a_constant_that_became_noise_fails() -> None:
    constant = np.ones((50, 4), np.float32)
    assert codes(check_accuracy(AccuracyEvidence({"y": constant}, {"y": noisy(constant, 9.0)}), Criteria())) == [
        "MNQ702"
    ]


def test_a_single_sample_can_not_be_sure() -> None:
    outputs = {"scores": noisy(SCORES[:1], 1e-4)}
    evidence = AccuracyEvidence({"scores": SCORES[:1]}, outputs)
    assert codes(check_accuracy(evidence, Criteria())) == ["MNQ730"]
    assert check_accuracy(evidence, Criteria(strict=True)).outcome == INCONCLUSIVE


def judge(reference: Array, output: Array, **criteria: Any) -> Result:
    return check_accuracy(AccuracyEvidence({"y": reference}, {"y": output}), Criteria(**criteria))


@pytest.mark.parametrize("samples", [2, 3, 7])
def test_few_samples_of_a_lost_output_are_reported(samples: int) -> None:
    random = np.random.default_rng(samples)
    reference, output = ((100 + random.standard_normal((samples, 100))).astype(np.float32) for _ in range(2))
    result = judge(reference, output)
    assert (result.outcome, codes(result)) == (PASSED, ["MNQ730"])
    strict = judge(reference, output, strict=True)
    assert (strict.outcome, codes(strict)) == (INCONCLUSIVE, ["MNQ730"])
    assert codes(judge(reference, noisy(reference, 0.001))) == []


def test_a_lost_mask_fails_with_few_samples() -> None:
    masks = np.zeros((6, 64, 64), np.int64)
    masks[:, 20:40, 20:40] = 1
    assert codes(judge(masks, 0 * masks)) == ["MNQ702"]
    assert codes(judge(masks, masks)) == []


@pytest.mark.parametrize("value", [-1e4, -1e9, float(np.finfo(np.float32).min)])
def test_a_masked_element_hides_no_others(value: float) -> None:
    reference, unrelated = SCORES[:50].copy(), SCORES[50:100].copy()
    similar = noisy(reference, 0.01)
    for array in (reference, unrelated, similar):
        array[:, 3] = value
    assert codes(judge(reference, unrelated)) == ["MNQ702"]
    assert codes(judge(reference, similar)) == []


@pytest.mark.parametrize("form", [np.uint8, np.int8])
def test_pictures_of_integers_are_compared_without_overflow(form: type[np.integer[Any]]) -> None:
    random, limits = np.random.default_rng(0), np.iinfo(form)
    reference = random.integers(limits.min, limits.max + 1, (20, 32, 32)).astype(form)
    near = reference + random.integers(-1, 2, reference.shape)
    assert codes(judge(reference, np.clip(near, limits.min, limits.max).astype(form))) == []
    assert codes(judge(reference, random.permutation(reference))) == ["MNQ702"]
