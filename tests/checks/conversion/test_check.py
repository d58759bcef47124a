"""The conversion check: the float model is the source, and the variant is of the same network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.checks.conversion.check import ConversionEvidence, check_conversion
from pytest_mnnquant.findings.file_metrics import ConversionMetrics
from pytest_mnnquant.findings.finding import INCONCLUSIVE, PASSED, Result
from pytest_mnnquant.measurements.conversion import FLOAT_MNN, ONNX, PYTORCH, Step
from pytest_mnnquant.metrics.agreement import Agreement, agreement
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.runtime.source_runtime import ONNXRUNTIME
from tests.golden_text import check_golden
from tests.results import measured
from tests.synthetic_evidence import as_int8, codes, layer, model, with_weights

FLOAT = model([layer("a"), layer("b", (4, 8, 3, 3)), layer("c", (9, 9, 1, 1))])
REFERENCE = np.random.default_rng(0).standard_normal((20, 6))
GOOD = {"y": agreement(REFERENCE, REFERENCE + 1e-6)}


def check(
    base: Model = FLOAT,
    variant: Model = FLOAT,
    proof: dict[str, Agreement] | None = GOOD,
    unproven: str = "",
    given: bool = False,
    **more: Any,
) -> Result:
    evidence = ConversionEvidence(base, proof, unproven, given, **more)
    return check_conversion(evidence, match_layers(base, variant))


def test_the_same_network_proven_passes() -> None:
    result = check(variant=model([as_int8(op) for op in FLOAT.ops]))
    assert result.outcome == PASSED
    assert measured(ConversionMetrics, result).outputs_compared == 1
    assert 0 <= (measured(ConversionMetrics, result).worst_relative_error or 0) < 1e-5
    assert (measured(ConversionMetrics, result).layers_matched, measured(ConversionMetrics, result).layers_missing) == (
        3,
        0,
    )


@pytest.mark.parametrize("error", [0.2, np.nan, np.inf])
def test_a_float_model_that_computes_something_else_fails(error: float) -> None:
    other = REFERENCE.copy()
    other[3, 3] += error
    result = check(proof={**GOOD, "z": agreement(REFERENCE, other)})
    assert codes(result) == ["MNQ110"]
    assert "'z'" in result.findings[0].message


def test_an_error_within_the_tolerance_passes() -> None:
    span = np.ptp(REFERENCE)
    other = REFERENCE.copy()
    for share, found in ((0.0099, []), (0.0102, ["MNQ110"])):
        assert codes(check(proof={"y": agreement(REFERENCE, REFERENCE + share * span)})) == found
    for share, found in ((0.0297, []), (0.0303, ["MNQ110"])):  # At a single element.
        other[0, 0] = REFERENCE[0, 0] + share * span
        assert codes(check(proof={"y": agreement(REFERENCE, other)})) == found


@pytest.mark.parametrize(("flipped", "found"), [(1, []), (10, ["MNQ110"])])
def test_integers_may_flip_in_a_few_places_only(flipped: int, found: list[str]) -> None:
    """Where a model ends in an arg max, rounding decides between classes that are as good as equal."""
    reference = np.arange(100) % 7
    other = reference.copy()
    other[:flipped] += 1
    result = check(proof={"classes": agreement(reference, other)})
    assert codes(result) == found
    if found:
        check_golden("conversion/integers-may-flip-in-a-few-places-only", result.findings[0].message)


def test_without_a_proof_it_stays_open_with_the_reason() -> None:
    result = check(proof=None, unproven="onnxruntime is not installed")
    assert result.outcome == INCONCLUSIVE
    assert codes(result) == ["MNQ111"]
    check_golden("conversion/without-a-proof-it-stays-open-with-the-reason", result.reason)


def test_a_source_that_is_its_own_float_model_needs_no_proof() -> None:
    assert check(proof={}).outcome == PASSED


@pytest.mark.parametrize("storage", [Storage.INTEGER, Storage.FLOAT16, Storage.SPARSE_INTEGER])
def test_a_quantized_source_is_refused(storage: Storage) -> None:
    first, *rest = FLOAT.ops
    quantized = model([with_weights(first, storage=storage, bits=8), *rest])
    result = check(quantized, quantized)
    assert codes(result) == ["MNQ104"]
    assert result.findings[0].layer == "a"
    check_golden("conversion/a-quantized-source-is-refused", result.findings[0].message)


def test_sparse_floats_are_floats() -> None:
    first, *rest = FLOAT.ops
    sparse = model([with_weights(first, storage=Storage.SPARSE_FLOAT, bits=32), *rest])
    assert check(sparse, sparse).outcome == PASSED


@pytest.mark.parametrize("given", [True, False])
def test_a_file_of_another_network_fails_and_names_layers(given: bool) -> None:
    other = model([FLOAT.ops[0], FLOAT.ops[1], layer("d", (7, 9, 1, 1))])
    result = check(variant=other, given=given)
    assert codes(result) == ["MNQ203"]
    (finding,) = result.findings
    check_golden("conversion/a-file-of-another-network-fails-and-names", finding.message)
    assert bool(finding.cause) == given
    assert measured(ConversionMetrics, result).layers_missing == 1


def test_a_layer_more_or_less_fails() -> None:
    assert codes(check(variant=model(FLOAT.ops[:2]))) == ["MNQ203"]
    assert codes(check(variant=model([*FLOAT.ops, layer("extra", (3, 3, 3, 3))]))) == ["MNQ203"]


def test_a_model_without_layers_is_no_evidence() -> None:
    empty = model([])
    assert codes(check(empty, empty)) == ["MNQ001"]


# Which step --------------------------------------------------------------------------------------------------------


def off(by: float, reference: np.ndarray = REFERENCE) -> Agreement:
    """An output of which one value is off by this share of the range."""
    other = reference.copy()
    other[3, 3] += by * np.ptp(reference)
    return agreement(reference, other)


def judged(exported: float, converted: float, whole: float) -> Result:
    chain = (Step(PYTORCH, ONNX, {"y": off(exported)}), Step(ONNX, FLOAT_MNN, {"y": off(converted)}))
    return check(proof={"y": off(whole)}, chain=chain)


@pytest.mark.parametrize(
    ("exported", "converted", "whole", "code", "cause"),
    [
        (0.2, 1e-6, 0.2, "MNQ112", "exporter"),
        (1e-6, 0.2, 0.2, "MNQ110", "converter"),
        (0.2, 0.3, 0.4, "MNQ110", "export-and-converter"),
        (0.017, 0.017, 0.034, "MNQ110", "no-single-step"),
    ],
)
def test_the_step_that_broke_an_output_is_accused_and_no_other(
    exported: float, converted: float, whole: float, code: str, cause: str
) -> None:
    result = judged(exported, converted, whole)
    assert codes(result) == [code]
    (finding,) = result.findings
    assert "'y'" in finding.message
    assert finding.cause_id == cause
    check_golden(f"conversion/broken-step-{cause}", f"{finding.cause_text}\n{finding.fix}")


def test_each_output_has_its_own_culprit() -> None:
    fine, wrong = off(1e-6), off(0.5)
    chain = (
        Step(PYTORCH, ONNX, {"a": wrong, "b": fine, "c": fine}),
        Step(ONNX, FLOAT_MNN, {"a": fine, "b": wrong, "c": fine}),
    )
    result = check(proof={"a": wrong, "b": wrong, "c": fine}, chain=chain)
    assert [(finding.code, finding.message.split("'")[1]) for finding in result.findings] == [
        ("MNQ112", "a"),
        ("MNQ110", "b"),
    ]


def test_a_float_model_that_is_right_passes_whatever_onnxruntime_computes() -> None:
    assert judged(0.2, 0.2, 1e-6).outcome == PASSED


def test_integers_are_told_by_their_share() -> None:
    reference = np.arange(100) % 7
    wrong = agreement(reference, np.where(np.arange(100) < 30, reference + 1, reference))
    chain = (
        Step(PYTORCH, ONNX, {"y": wrong}),
        Step(ONNX, FLOAT_MNN, {"y": agreement(reference, reference)}),
    )
    result = check(proof={"y": wrong}, chain=chain)
    assert codes(result) == ["MNQ112"]
    check_golden("conversion/integers-are-told-by-their-share", result.findings[0].message)
    assert "100.0% equal" in result.findings[0].message


def test_an_onnx_source_has_one_step_to_blame() -> None:
    result = check(proof={"y": off(0.3)}, chain=(Step(ONNX, FLOAT_MNN, {"y": off(0.3)}),))
    assert codes(result) == ["MNQ110"]
    check_golden("conversion/an-onnx-source-has-one-step-to-blame", result.findings[0].cause_text)
    assert result.findings[0].cause_id == "converter"
    assert "--mnn-exporter" not in result.findings[0].fix


def test_without_onnxruntime_either_step_may_have_done_it() -> None:
    chain = (Step(PYTORCH, FLOAT_MNN, {"y": off(0.3)}),)
    result = check(proof={"y": off(0.3)}, chain=chain, unchained=ONNXRUNTIME.not_installed)
    assert codes(result) == ["MNQ110"]
    check_golden("conversion/without-onnxruntime-either-step-may-have-done", result.findings[0].cause_text)
    assert result.findings[0].cause_id == "export-or-converter"
    assert ONNXRUNTIME.not_installed in result.findings[0].cause_text
    assert measured(ConversionMetrics, result).chain_lacks == ONNXRUNTIME.not_installed


def test_each_step_has_its_figures_in_the_report() -> None:
    chain = measured(ConversionMetrics, judged(1e-6, 2e-6, 3e-6)).chain
    assert [(step.before, step.after) for step in chain] == [(PYTORCH, ONNX), (ONNX, FLOAT_MNN)]
    for step, error in zip(chain, (1e-6, 2e-6), strict=True):
        assert step.outputs["y"].relative_error == pytest.approx(error, rel=1e-3)


# Twice the same ----------------------------------------------------------------------------------------------------


def test_models_that_come_out_the_same_twice_pass() -> None:
    result = check(repeated={"float .mnn": "", "quantized .mnn": ""})
    assert result.outcome == PASSED
    assert measured(ConversionMetrics, result).converted_twice == ("float .mnn", "quantized .mnn")


def test_each_model_that_does_not_fails_with_the_place() -> None:
    where = {"float .mnn": "", "float .mnn of the variant": "a: 3 of 288 weights, by up to 0.1", "quantized .mnn": "b"}
    result = check(repeated=where)
    assert codes(result) == ["MNQ113", "MNQ113"]
    check_golden("conversion/each-model-that-does-not-fails-with-the-place", result.findings[0].message)
