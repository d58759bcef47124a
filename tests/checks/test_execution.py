"""The execution check: what is stored in int8 must be seen to run in int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_mnnquant.checks.accuracy.causes import KnownCauses, cause
from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.checks.execution import ExecutionEvidence, check_execution
from pytest_mnnquant.findings.finding import INCONCLUSIVE, PASSED, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.findings.run_metrics import ExecutionMetrics
from pytest_mnnquant.measurements.run import TracedOp
from pytest_mnnquant.mnnfile.int8_faults import Int8Faults, MisreadInterp
from pytest_mnnquant.mnnfile.int8_resize import WrongResize
from pytest_mnnquant.mnnfile.model import Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.names import RECIPES
from tests.golden_text import check_golden
from tests.results import measured
from tests.synthetic_evidence import as_int8, codes, layer, with_weights

LAYERS = (layer("big", (64, 64, 3, 3)), layer("small", (4, 4, 1, 1)))


def row(op: Op, stored: Op | None) -> LayerRow:
    return LayerRow(op, stored, True, stored is not None and stored.weights[0].full_int8)


ROWS = tuple(row(op, as_int8(op)) for op in LAYERS)
TRACE = (
    TracedOp("cast", "FloatToInt8", True),
    TracedOp("big", "Convolution", True),
    TracedOp("small", "Convolution", True),
    TracedOp("back", "Int8ToFloat", False),
)


def check(
    rows: tuple[LayerRow, ...] = ROWS,
    trace: Sequence[TracedOp] | None = TRACE,
    same: bool | None = False,
    recipe: str = "int8",
    **more: Any,
) -> Result:
    return check_execution(rows, RECIPES[recipe], ExecutionEvidence(trace, same, **more))


def in_float(name: str) -> list[TracedOp]:
    return [dataclasses.replace(op, int8=False) if op.name == name else op for op in TRACE]


def test_what_is_stored_and_ran_in_int8_passes_with_its_figures() -> None:
    result = check()
    assert result.outcome == PASSED
    assert result.metrics == ExecutionMetrics(ops=4, int8_ops=3, casts=2, int8_weight_share=1.0, int8_layers=2)


def test_a_layer_that_is_stored_in_int8_and_ran_in_float_fails() -> None:
    result = check(trace=in_float("small"))
    assert codes(result) == ["MNQ601"]
    assert result.findings[0].layer == "small"
    assert measured(ExecutionMetrics, result).int8_layers == 1
    assert 0.99 < (measured(ExecutionMetrics, result).int8_weight_share or 0) < 1


def test_a_static_file_without_scales_is_the_cause_of_floats() -> None:
    found = [check(trace=in_float("small"), is_undescribed=static).findings[0] for static in (False, True)]
    assert [item.cause and item.cause.id for item in found] == ["no-int-kernel", "static-without-scales"]
    assert [bool(item.fix) for item in found] == [False, True]


def test_a_layer_that_did_not_run_fails() -> None:
    result = check(trace=[op for op in TRACE if op.name != "big"])
    assert codes(result) == ["MNQ602"]
    assert result.findings[0].layer == "big"


def test_an_empty_trace_is_no_proof() -> None:
    assert codes(check(trace=())) == ["MNQ602", "MNQ602"]


def test_without_a_trace_it_stays_open() -> None:
    result = check(trace=None)
    assert result.outcome == INCONCLUSIVE
    assert codes(result) == ["MNQ002"]


@pytest.mark.parametrize("recipe", ["int8", "w8", "fp16"])
def test_outputs_that_equal_the_floats_in_every_bit_fail(recipe: str) -> None:
    assert codes(check(same=True, recipe=recipe)) == ["MNQ603"]


def test_not_knowing_whether_outputs_are_equal_is_no_fault() -> None:
    assert check(same=None).outcome == PASSED


def test_a_model_with_no_int8_layer_fails_once() -> None:
    rows = tuple(row(op, op) for op in LAYERS)
    trace = [TracedOp(op.name, "Convolution", False) for op in LAYERS]
    result = check(rows, trace)
    assert codes(result) == ["MNQ601"]
    check_golden("execution/a-model-with-no-int8-layer-fails-once", result.findings[0].message)
    assert measured(ExecutionMetrics, result).int8_weight_share == 0


def test_weight_only_layers_need_only_have_run() -> None:
    rows = tuple(row(op, with_weights(op, storage=Storage.INTEGER, bits=8)) for op in LAYERS)
    trace = [TracedOp(op.name, "Convolution", False) for op in LAYERS]
    assert check(rows, trace, recipe="w8").outcome == PASSED
    assert codes(check(rows, trace[:1], recipe="w8")) == ["MNQ602"]


def test_layers_that_can_not_be_traced_are_not_looked_for() -> None:
    table = layer("table", (50, 12), kind="Const")
    inside = layer("inside", subgraph="body")
    assert check((*ROWS, row(table, table), row(inside, inside), row(layer("gone"), None))).outcome == PASSED
    assert codes(check((row(table, table), row(inside, inside)))) == ["MNQ001"]
    assert codes(check(())) == ["MNQ001"]


def test_tables_alone_are_proven_by_outputs_that_differ() -> None:
    table = layer("table", (50, 12), kind="Const")
    assert check((row(table, table),), recipe="fp16").outcome == PASSED
    assert codes(check((row(table, table),), same=True, recipe="w8")) == ["MNQ603"]
    assert codes(check((row(table, table),), same=None, recipe="fp16")) == ["MNQ001"]


def test_a_layer_that_mnn_computes_before_a_run_may_be_missing() -> None:
    trace = [op for op in TRACE if op.name != "big"]
    assert check(trace=trace, known_ahead={"big"}).outcome == PASSED
    assert codes(check(trace=trace, known_ahead={"small"})) == ["MNQ602"]


def test_a_renamed_layer_is_looked_for_under_its_name_in_the_file() -> None:
    (mine, _) = LAYERS
    renamed = row(mine, dataclasses.replace(as_int8(mine), name="ConvInt85"))
    assert check((renamed,), [TracedOp("ConvInt85", "Convolution", True)]).outcome == PASSED
    assert codes(check((renamed,), [TracedOp("big", "Convolution", True)])) == ["MNQ602"]


def test_a_scale_that_ran_in_int8_is_told() -> None:
    result = check(faults=Int8Faults(scales=("/norm/Batch",)))
    assert codes(result) == ["MNQ611"]
    assert result.findings[0].layer == "/norm/Batch"


def test_a_clamping_sum_is_a_warning() -> None:
    result = check(faults=Int8Faults(clamping=("/Add_1", "/Add_2")))
    assert result.outcome == PASSED
    assert codes(result) == ["MNQ610"]
    assert result.findings[0].layer == "/Add_1"


def test_without_a_trace_other_outputs_are_proof_for_weights_alone() -> None:
    assert check(trace=None, recipe="w8").outcome == PASSED
    assert codes(check(trace=None, recipe="w8", same=True)) == ["MNQ603"]
    assert codes(check(trace=None, recipe="w8", same=None)) == ["MNQ002"]
    assert codes(check(trace=None, same=True)) == ["MNQ603"]


def test_an_interp_between_two_scales_is_a_warning_that_names_the_worst() -> None:
    result = check(faults=Int8Faults(interps=(MisreadInterp("/Up_1", 1.1), MisreadInterp("/Up_2", 0.4))))
    (finding,) = result.findings
    assert (finding.code, finding.layer, result.outcome) == ("MNQ612", "/Up_2", PASSED)


def test_a_resize_that_arm_computes_wrongly_fails_elsewhere_and_is_judged_by_accuracy_on_arm() -> None:
    faults = Int8Faults(resizes=(WrongResize("/Up_1", 1, 33), WrongResize("/Up_2", 2, 14)))
    (finding,) = check(faults=faults).findings
    assert (finding.code, finding.layer, finding.severity) == ("MNQ613", "/Up_2", Severity.ERROR)
    assert check(faults=faults, on_arm=True).outcome == PASSED
    arm = cause(KnownCauses(faults=faults, on_arm=True))
    assert arm is not None
    assert arm.id == "resize-signed-factor"
    assert cause(KnownCauses(faults=faults)) is None
