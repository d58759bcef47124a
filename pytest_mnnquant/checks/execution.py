"""Execution: which operators the runtime ran in int8, by its operator trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.checks.api_difference import ApiDifference, check_apis
from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.checks.operator_faults import explanations, fault_findings
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.run_metrics import ExecutionMetrics
from pytest_mnnquant.measurements.run import TracedOp
from pytest_mnnquant.mnnfile.int8_faults import NO_FAULTS, Int8Faults
from pytest_mnnquant.mnnfile.structure import CASTS
from pytest_mnnquant.recipes.recipe import Quantizer, Recipe


@dataclass(frozen=True)
class ExecutionEvidence:
    """Which operators ran, and how.

    `trace` is None if MNN gave none; `untraced` is the reason, if the runtime is at fault. `same_as_float`: whether all
    outputs are bitwise equal to the float model's (None: unknown). `faults` are operators that ran in int8 and that MNN
    computes wrongly, `wrong_pools` the int8 MaxPools on a machine that computes them wrongly. `apis` is the difference
    between MNN's two APIs; None if only one can run the model. `on_arm`: whether an aarch64 processor ran it.
    `known_ahead` are the layers of the variant that read constants and shapes only: MNN computes them before a run, so
    its trace may lack them. `is_undescribed`: the variant was made with `--saveStaticModel` and describes no quantized
    tensor.
    """

    trace: Sequence[TracedOp] | None
    same_as_float: bool | None
    faults: Int8Faults = NO_FAULTS
    wrong_pools: Sequence[str] = ()
    untraced: str = ""
    apis: ApiDifference | None = None
    on_arm: bool = False
    known_ahead: Collection[str] = ()
    is_undescribed: bool = False


def check_execution(rows: tuple[LayerRow, ...], recipe: Recipe, execution: ExecutionEvidence) -> Result:
    """Judge which layers ran in int8.

    Weight-only layers run as float operators on decoded weights: for them the trace proves only that they ran, and
    outputs that differ from the float model's prove that the stored weights were used. Of tables, which no operator of
    the trace holds, only that proves anything.
    """
    trace = execution.trace
    if trace is None:
        return Result.from_findings("execution", _without_trace(recipe, execution))
    ran = {op.name: op for op in trace}
    metrics = ExecutionMetrics(
        ops=len(trace),
        int8_ops=sum(op.int8 for op in trace),
        casts=sum(op.kind in CASTS for op in trace),
    )
    layers = [row for row in rows if row.stored and row.stored.is_convolution and not row.stored.subgraph]
    if not layers and rows and not recipe.activations and execution.same_as_float is not None:
        return Result.from_findings("execution", _without_trace(recipe, execution), metrics)
    if not layers:
        return Result.from_findings(
            "execution", [Finding("MNQ001", "no layer of the model could be matched with the trace")], metrics
        )
    findings = [
        Finding("MNQ602", "missing from the trace of the operators that ran", row.layer.name)
        for row in layers
        if row.stored and row.stored.name not in ran and row.stored.name not in execution.known_ahead
    ]
    if recipe.activations:
        findings += _int8(layers, ran, recipe, _UNDESCRIBED if execution.is_undescribed else _NO_KERNEL)
        metrics = _with_int8(metrics, layers, ran)
    findings += fault_findings(execution.faults, on_arm=execution.on_arm)
    if execution.same_as_float:
        findings.append(_SAME)
    findings += check_apis(execution.apis, explanations(execution.faults, execution.wrong_pools))
    return Result.from_findings("execution", findings, metrics)


_SAME: Final = Finding(
    "MNQ603",
    "all outputs are bitwise equal to the float model's",
    cause=Cause(
        "nothing-quantized-runs", "nothing that runs is quantized: an accuracy check would pass for that reason"
    ),
    fix="see the coverage check for the stored layers",
)


def _without_trace(recipe: Recipe, execution: ExecutionEvidence) -> list[Finding]:
    """The findings without a trace; outputs that differ from the float model's prove that stored weights were used."""
    if execution.same_as_float:
        return [_SAME]
    if execution.same_as_float is False and not recipe.activations:
        return []
    if execution.untraced:
        return [Finding("MNQ002", execution.untraced, fix="nothing to do: accuracy judges what this runtime computes")]
    return [
        Finding(
            "MNQ002",
            "MNN gives no operator trace for this model, which has While or If bodies",
            fix="nothing to do: coverage and accuracy judge this model",
        )
    ]


_NO_KERNEL: Final = Cause(
    "no-int-kernel", "MNN has no int8 kernel for this layer, or its input and output tensors are not quantized"
)
_UNDESCRIBED: Final = Cause(
    "static-without-scales",
    "the model was made with --saveStaticModel, for which the converter writes no scales of tensors: it runs in float",
)
_NOT_STATIC: Final = "give the .mnn that was made without --saveStaticModel, or its .onnx"


def _int8(layers: list[LayerRow], ran: dict[str, TracedOp], recipe: Recipe, cause: Cause) -> list[Finding]:
    stored = [row for row in layers if row.stored and row.stored.weights[0].full_int8]
    floats = [row for row in stored if row.stored and row.stored.name in ran and not ran[row.stored.name].int8]
    if not stored:
        return [
            Finding(
                "MNQ601",
                f"0 of {len(layers)} layers can run in int8: none is stored with quantized activations",
                cause=None
                if recipe.quantizer is Quantizer.MNNQUANT
                else Cause("params-not-applied", "the params file was not applied"),
                fix="see the coverage and params checks",
            )
        ]
    return [
        Finding(
            "MNQ601",
            f"stored in int8, ran as float {ran[row.stored.name].kind}",
            row.layer.name,
            cause=cause,
            fix=_NOT_STATIC if cause is _UNDESCRIBED else "",
        )
        for row in floats
        if row.stored
    ]


def _with_int8(metrics: ExecutionMetrics, layers: list[LayerRow], ran: dict[str, TracedOp]) -> ExecutionMetrics:
    """The metrics with the layers that ran in int8, and their share of all weights."""
    in_int8 = [row.layer for row in layers if row.stored and row.stored.name in ran and ran[row.stored.name].int8]
    total = sum(row.layer.weight_count for row in layers)
    share = sum(layer.weight_count for layer in in_int8) / total if total else 0.0
    return dataclasses.replace(metrics, int8_weight_share=share, int8_layers=len(in_int8))
