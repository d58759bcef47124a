"""The coverage check: a layer that is not stored as asked is named, however little it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.checks.coverage.check import LayerRow, check_coverage, coverage, layer_rows
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.file_metrics import CoverageMetrics
from pytest_mnnquant.findings.finding import FAILED, PASSED, Result
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.names import RECIPES, recipe_named
from tests.golden_text import check_golden
from tests.results import measured
from tests.synthetic_evidence import INT8, as_int8, codes, layer, model, with_weights

BIG, SMALL = layer("big", (64, 64, 3, 3)), layer("small", (4, 4, 1, 1))
BROKEN: dict[str, Any] = {"storage": Storage.INTEGER, "intact": False, **INT8}


def rows(pairs: list[tuple[Op, Op | None]], recipe: str = "int8", skip: tuple[str, ...] = ()) -> tuple[LayerRow, ...]:
    stored = [other for _, other in pairs if other is not None]
    match = match_layers(model([mine for mine, _ in pairs]), model(stored))
    return layer_rows(match, RECIPES[recipe], lambda op: op.name in skip)


def _explain(row: LayerRow) -> Explanation:
    return Explanation(Cause("some", f"why {row.layer.name}"), "how")


def check(pairs: list[tuple[Op, Op | None]], minimum: float = 0.99, recipe: str = "int8", **more: Any) -> Result:
    found = rows(pairs, recipe, **more)
    return check_coverage(found, RECIPES[recipe], minimum, _explain)


def test_all_layers_as_asked_pass() -> None:
    result = check([(BIG, as_int8(BIG)), (SMALL, as_int8(SMALL))])
    assert result.outcome == PASSED
    assert result.metrics == CoverageMetrics(coverage=1.0, layers=2, quantized_layers=2, skipped_layers=0)


def test_a_large_layer_left_float_fails_by_name_with_its_share_and_cause() -> None:
    result = check([(BIG, BIG), (SMALL, as_int8(SMALL))])
    assert codes(result) == ["MNQ401"]
    (finding,) = result.findings
    assert finding.layer == "big"
    assert "float32" in finding.message
    assert "100%" in finding.message
    assert (finding.cause, finding.fix) == (Cause("some", "why big"), "how")
    assert measured(CoverageMetrics, result).coverage < 0.01


def test_a_tiny_layer_left_float_passes_by_bytes_and_fails_when_all_are_asked() -> None:
    pairs: list[tuple[Op, Op | None]] = [(BIG, as_int8(BIG)), (SMALL, SMALL)]
    assert check(pairs).outcome == PASSED
    assert codes(check(pairs, 1.0)) == ["MNQ401"]


@pytest.mark.parametrize(
    ("recipe", "storage"),
    [
        ("int8", {"storage": Storage.INTEGER, "bits": 8}),  # weight-only
        ("int8", {"storage": Storage.FLOAT16, "bits": 16}),
        ("w8", {"storage": Storage.INTEGER, "bits": 4}),
        ("w4", {"storage": Storage.INTEGER, "bits": 8}),
        ("w4", {"storage": Storage.SPARSE_INTEGER, "bits": 8}),
        ("fp16", {"storage": Storage.INTEGER, "bits": 8}),
    ],
    ids=str,
)
def test_another_precision_than_asked_is_told_as_such(recipe: str, storage: dict[str, Any]) -> None:
    result = check([(BIG, with_weights(BIG, **storage))], recipe=recipe)
    assert codes(result) == ["MNQ402"]
    assert with_weights(BIG, **storage).weights[0].label in result.findings[0].message


def test_a_layer_without_a_counterpart_is_not_covered() -> None:
    result = check([(BIG, None), (SMALL, as_int8(SMALL))])
    assert codes(result) == ["MNQ401"]
    assert "no counterpart" in result.findings[0].message


def test_a_broken_buffer_fails_even_where_the_share_is_reached() -> None:
    result = check([(BIG, as_int8(BIG)), (SMALL, with_weights(SMALL, **BROKEN))], 0.5)
    assert codes(result) == ["MNQ403"]
    assert result.findings[0].layer == "small"
    both = check([(BIG, BIG), (SMALL, with_weights(SMALL, **BROKEN))])
    assert sorted(codes(both)) == ["MNQ401", "MNQ403"]


def test_skipped_layers_neither_count_nor_fail() -> None:
    result = check([(BIG, BIG), (SMALL, as_int8(SMALL))], skip=("big",))
    assert result.outcome == PASSED
    assert codes(result) == []
    assert result.metrics == CoverageMetrics(coverage=1.0, layers=1, quantized_layers=1, skipped_layers=1)


def test_a_layer_that_should_stay_float_and_does_not_fails() -> None:
    result = check([(BIG, as_int8(BIG)), (SMALL, as_int8(SMALL))], skip=("big",))
    assert codes(result) == ["MNQ405"]
    assert result.findings[0].layer == "big"


def test_a_pattern_that_matches_no_layer_is_a_warning() -> None:
    found = rows([(BIG, as_int8(BIG))])
    result = check_coverage(found, RECIPES["int8"], 0.99, lambda _row: Explanation(), ("bigg",))
    assert result.outcome == PASSED
    assert codes(result) == ["MNQ404"]
    assert "bigg" in result.findings[0].message


def test_nothing_to_quantize_is_no_pass() -> None:
    assert codes(check([])) == ["MNQ001"]
    assert codes(check([(BIG, BIG)], skip=("big",))) == ["MNQ001"]
    assert codes(check([(BIG, BIG)], 0.0, skip=("big",))) == ["MNQ001"]


def test_a_limit_of_zero_lets_everything_pass() -> None:
    assert check([(BIG, BIG)], 0.0).outcome == PASSED


def test_rows_come_largest_first() -> None:
    found = rows([(SMALL, SMALL), (BIG, as_int8(BIG))], skip=("small",))
    assert [row.layer.name for row in found] == ["big", "small"]


LAYERS = st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.booleans()), min_size=1, max_size=6)


@given(LAYERS, st.floats(0, 1))
def test_coverage_is_the_share_of_wanted_bytes_and_decides(
    layers: list[tuple[int, bool, bool]], minimum: float
) -> None:
    pairs: list[tuple[Op, Op | None]] = []
    for number, (size, quantized, skipped) in enumerate(layers):
        op = layer(f"l{number}", (size, number + 1, 1, 1))
        pairs.append((op, as_int8(op) if quantized and not skipped else op))
    skip = tuple(f"l{number}" for number, (_, _, skipped) in enumerate(layers) if skipped)
    found = rows(pairs, skip=skip)
    share = coverage(found)
    assert 0 <= share <= 1
    wanted = [
        (op.weight_bytes, quantized)
        for (op, _), (_, quantized, skipped) in zip(pairs, layers, strict=True)
        if not skipped
    ]
    total = sum(size for size, _ in wanted)
    if total:
        assert share == pytest.approx(sum(size for size, quantized in wanted if quantized) / total)
    result = check(pairs, minimum, skip=skip)
    assert result.outcome == (PASSED if total and share >= minimum else FAILED)
    if result.outcome == FAILED and total:
        assert {finding.layer for finding in result.findings} == {
            f"l{number}" for number, (_, quantized, skipped) in enumerate(layers) if not quantized and not skipped
        }


@pytest.mark.parametrize(
    ("recipe", "bits", "is_stored"), [("int8", 8, True), ("int8", 4, False), ("int8+w4", 4, True), ("w8", 8, True)]
)
def test_a_layer_that_reads_constants_only_needs_its_weights_in_few_bits_and_no_scales(
    recipe: str, bits: int, is_stored: bool
) -> None:
    stored = with_weights(BIG, storage=Storage.INTEGER, bits=bits)
    (row,) = layer_rows(
        match_layers(model([BIG]), model([stored])), recipe_named(recipe), lambda _op: False, known_ahead={"big"}
    )
    assert (row.wanted, row.quantized, row.is_known_ahead) == (True, is_stored, True)


def table(name: str, size: int) -> Op:
    """A constant of two dimensions."""
    return dataclasses.replace(layer(name, (size, 64)), kind="Const")


def with_tables(*tables: Op) -> Result:
    """The coverage of a layer that is quantized, and tables that are added and stay float."""
    base, stored = model([BIG, *tables]), model([as_int8(BIG), *tables])
    operands = {(op.subgraph, op.name) for op in tables}
    found = layer_rows(match_layers(base, stored), RECIPES["int8"], lambda _op: False, operands)
    return check_coverage(found, RECIPES["int8"], 1.0, _explain)


def test_constants_that_are_no_weights_do_not_count() -> None:
    result = with_tables(table("position", 8))
    assert (result.outcome, codes(result)) == (PASSED, [])
    assert result.metrics == CoverageMetrics(coverage=1.0, layers=1, quantized_layers=1, skipped_layers=0)


def test_large_constants_are_reported_once_by_the_largest() -> None:
    result = with_tables(table("mask", 100), table("position", 500))
    (finding,) = result.findings
    assert (result.outcome, finding.code, finding.layer) == (PASSED, "MNQ406", "position")
    check_golden("coverage/large-constants", finding.message)


def test_large_constants_that_are_stored_in_16_bits_are_not_reported() -> None:
    position = table("position", 500)
    half = with_weights(position, storage=Storage.FLOAT16)
    match = match_layers(model([BIG, position]), model([as_int8(BIG), half]))
    found = layer_rows(match, RECIPES["int8"], lambda _op: False, {("", "position")})
    assert codes(check_coverage(found, RECIPES["int8"], 1.0, _explain)) == []
