"""A part of an output that is lost fails, however well the rest looks; what says nothing is left alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.checks.accuracy.part_variation import PartEvidence
from pytest_mnnquant.findings.finding import FAILED, PASSED, Result
from pytest_mnnquant.metrics.task import metric_named
from pytest_mnnquant.mnnfile.model import TensorQuant
from pytest_mnnquant.mnnfile.output_parts import OutputParts, Part
from tests.golden_text import check_golden
from tests.synthetic_evidence import codes

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
BOXES = Part("boxes", "join", "boxes", False, ("rows", "boxes"))
SCORES = Part("scores", "join", "scores", True, ("rows", "scores"))
#: Four coordinates and three scores of each of ten anchors.
PLACES = np.repeat([0, 0, 0, 0, 1, 1, 1], 10).reshape(1, 7, 10).astype(np.int32)


def rows(samples: int = 60) -> Array:
    boxes = 100 + 40 * RANDOM.standard_normal((samples, 4, 10))
    scores = RANDOM.random((samples, 3, 10)) ** 4
    return np.concatenate([boxes, scores], 1).astype(np.float32)


def rounded(values: Array, scale: float) -> Array:
    return np.asarray(np.round(values / scale) * scale, np.float32)


def check(reference: Array, output: Array, scale: float = 0.0, **changes: Any) -> Result:
    part = dataclasses.replace(SCORES, **changes)
    quants = {"rows": TensorQuant(scale, 0, -127, 127, "int8")} if scale else {}
    parts = PartEvidence({"rows": OutputParts((BOXES, part), PLACES)}, quants)
    return check_accuracy(AccuracyEvidence({"rows": reference}, {"rows": output}, parts=parts), Criteria())


def test_scores_that_the_scale_of_the_boxes_rounds_away_fail_with_the_join_and_its_scale() -> None:
    reference = rows()
    result = check(reference, rounded(reference, 2.0), 2.0)
    assert codes(result) == ["MNQ712"]
    (finding,) = result.findings
    assert (finding.layer, finding.cause_id) == ("join", "parts-share-scale")
    check_golden("accuracy/a-lost-part", "\n".join([finding.message, finding.cause_text, finding.fix]))


def test_a_part_that_is_lost_otherwise_names_no_scale() -> None:
    reference = rows()
    output = reference.copy()
    output[:, 4:] = output[::-1, 4:]
    result = check(reference, output, 0.001)
    assert codes(result) == ["MNQ712"]
    assert (result.findings[0].layer, result.findings[0].cause) == ("", None)


def test_parts_with_scales_of_their_own_pass() -> None:
    reference = rows()
    output = np.concatenate([rounded(reference[:, :4], 2.0), rounded(reference[:, 4:], 1 / 127)], 1)
    assert check(reference, output, 2.0).outcome == PASSED


@pytest.mark.parametrize("samples", [2, 3, 4, 5])
def test_few_samples_fail_only_if_the_part_is_frozen(samples: int) -> None:
    reference = rows(samples)
    alike = reference.copy()
    alike[1:, 4:] = alike[:1, 4:] + 0.01 * RANDOM.standard_normal((samples - 1, 3, 10))
    noisy = alike.copy()
    noisy[:, 4:] += 0.01 * RANDOM.standard_normal((samples, 3, 10))
    assert check(alike, noisy).outcome == PASSED
    lost = reference.copy()
    lost[:, 4:] = 0
    assert check(reference, lost, 2.0).outcome == FAILED
    assert check(reference[:1], lost[:1], 2.0).outcome == PASSED


@pytest.mark.parametrize(
    "scores", [np.zeros((60, 3, 10)), np.full((60, 3, 10), 0.3), 0.001 * RANDOM.random((60, 3, 10))]
)
def test_parts_that_say_nothing_in_the_float_model_are_not_judged(scores: Array) -> None:
    reference = rows()
    reference[:, 4:] = scores
    assert check(reference, rounded(reference, 2.0), 2.0).outcome == PASSED


def test_an_output_that_a_metric_judges_is_not_judged_in_parts() -> None:
    reference = rows()
    parts = PartEvidence({"rows": OutputParts((BOXES, SCORES), PLACES)})
    evidence = AccuracyEvidence({"rows": reference}, {"rows": rounded(reference, 2.0)}, reference, parts=parts)
    criteria = Criteria(metric=metric_named("mae"), max_drop=5.0)
    assert "MNQ712" not in codes(check_accuracy(evidence, criteria))


def test_places_that_do_not_fit_the_output_are_not_used() -> None:
    reference = rows()[:, :, :9]
    assert check(reference, rounded(reference, 2.0), 2.0).outcome == PASSED


@pytest.mark.parametrize(("tensor", "expected"), [("rows", ["MNQ712"]), ("conv", ["MNQ712"]), ("other", [])])
def test_channels_of_one_layer_are_parts_if_one_scale_loses_the_small_ones(tensor: str, expected: list[str]) -> None:
    random = np.random.default_rng(5)
    boxes, scores = random.uniform(20, 300, (60, 4, 10)), random.uniform(0.2, 1, (60, 3, 10))
    reference = np.concatenate([boxes, scores], 1).astype(np.float32)
    quants = {tensor: TensorQuant(2.0, 0, -127, 127, "int8")}
    parts = PartEvidence({}, quants, {"rows": ("rows", "moved", "conv")})
    outputs = {"rows": rounded(reference, 2.0)}
    result = check_accuracy(AccuracyEvidence({"rows": reference}, outputs, parts=parts), Criteria())
    assert codes(result) == expected
    if expected:
        (finding,) = result.findings
        check_golden("accuracy/a-lost-group-of-channels", f"{finding.message}\n{finding.cause_text}\n{finding.fix}")


@pytest.mark.parametrize("samples", [2, 3])
def test_a_frozen_part_of_few_samples_that_are_alike_is_reported_as_uncertain(samples: int) -> None:
    reference = rows(samples)
    reference[:, 4:] = 5 + 0.002 * RANDOM.standard_normal((samples, 3, 10))
    output = reference.copy()
    output[:, 4:] = 5
    result = check(reference, output, is_probability=False)
    assert (result.outcome, codes(result)) == (PASSED, ["MNQ730"])
