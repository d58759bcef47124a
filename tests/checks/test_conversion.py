"""The conversion check: the float model is the source, and the variant is of the same network."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mnnquant.checks.conversion import check_conversion
from pytest_mnnquant.checks.finding import INCONCLUSIVE, PASSED, Result
from pytest_mnnquant.metrics.agreement import Agreement, agreement
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.storage import Storage
from tests.evidence import as_int8, codes, layer, model, with_weights

FLOAT = model([layer("a"), layer("b", (4, 8, 3, 3)), layer("c", (9, 9, 1, 1))])
REFERENCE = np.random.default_rng(0).standard_normal((20, 6))
GOOD = {"y": agreement(REFERENCE, REFERENCE + 1e-6)}


def check(
    base: Model = FLOAT,
    variant: Model = FLOAT,
    proof: dict[str, Agreement] | None = GOOD,
    unproven: str = "",
    given: bool = False,
) -> Result:
    return check_conversion(base, proof, unproven, match_layers(base, variant), given)


def test_the_same_network_proven_passes() -> None:
    result = check(variant=model([as_int8(op) for op in FLOAT.ops]))
    assert result.outcome == PASSED
    assert result.metrics["outputs_compared"] == 1
    assert result.metrics["worst_relative_error"] < 1e-5
    assert (result.metrics["layers_matched"], result.metrics["layers_missing"]) == (3, 0)


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
    other[0, 0] += 0.0099 * span
    assert check(proof={"y": agreement(REFERENCE, other)}).outcome == PASSED
    other[0, 0] += 0.0003 * span
    assert codes(check(proof={"y": agreement(REFERENCE, other)})) == ["MNQ110"]


@pytest.mark.parametrize(("flipped", "found"), [(1, []), (10, ["MNQ110"])])
def test_integers_may_flip_in_a_few_places_only(flipped: int, found: list[str]) -> None:
    """Where a model ends in an arg max, rounding decides between classes that are as good as equal."""
    reference = np.arange(100) % 7
    other = reference.copy()
    other[:flipped] += 1
    result = check(proof={"classes": agreement(reference, other)})
    assert codes(result) == found
    if found:
        assert "90.0% of the source's integers" in result.findings[0].message


def test_without_a_proof_it_stays_open_with_the_reason() -> None:
    result = check(proof=None, unproven="onnxruntime is not installed")
    assert result.outcome == INCONCLUSIVE
    assert codes(result) == ["MNQ111"]
    assert "onnxruntime is not installed" in result.reason


def test_a_source_that_is_its_own_float_model_needs_no_proof() -> None:
    assert check(proof={}).outcome == PASSED


@pytest.mark.parametrize("storage", [Storage.INTEGER, Storage.FLOAT16, Storage.SPARSE_INTEGER])
def test_a_quantized_source_is_refused(storage: Storage) -> None:
    first, *rest = FLOAT.ops
    quantized = model([with_weights(first, storage=storage, bits=8), *rest])
    result = check(quantized, quantized)
    assert codes(result) == ["MNQ104"]
    assert result.findings[0].layer == "a"
    assert "1 of 3 layers" in result.findings[0].message


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
    assert "c [9, 9, 1, 1]" in finding.message
    assert "d [7, 9, 1, 1]" in finding.message
    assert bool(finding.cause) == given
    assert result.metrics["layers_missing"] == 1


def test_a_layer_more_or_less_fails() -> None:
    assert codes(check(variant=model(FLOAT.ops[:2]))) == ["MNQ203"]
    assert codes(check(variant=model([*FLOAT.ops, layer("extra", (3, 3, 3, 3))]))) == ["MNQ203"]


def test_a_model_without_layers_is_no_evidence() -> None:
    empty = model([])
    assert codes(check(empty, empty)) == ["MNQ001"]
