"""Execution: what the runtime did, by its op trace."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.checks.api_difference import ApiDifference, check_apis
from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.run_metrics import ExecutionMetrics
from pytest_mnnquant.measurements.run import TracedOp
from pytest_mnnquant.mnnfile.int8_faults import NO_FAULTS, Int8Faults
from pytest_mnnquant.mnnfile.structure import CASTS
from pytest_mnnquant.recipes.recipe import Quantizer, Recipe

#: Why a net whose BatchNorms are not folded is ruined in int8, and what to do; measured on x86 and on ARM, MNN 3.6.1.
INT8_SCALE: Final = Cause(
    "scale-ignores-input",
    "MNN's int8 Scale (a BatchNorm that does not follow a convolution) ignores its input: each channel comes out "
    "constant, on x86 and ARM alike",
)
INT8_SCALE_REMEDY = (
    "export that BatchNorm as a multiplication and an addition (the int8 recipe does so for PyTorch sources), or leave "
    "the layer after it float"
)
#: Why a residual net loses accuracy in int8, and what to do; measured on x86 and on ARM, MNN 3.6.1.
ADD_RELU: Final = Cause(
    "add-relu-clamps",
    "MNN's int8 Add with a fused ReLU clamps at code 0 instead of the zero point, so small values are raised to the "
    "middle of the range, on x86 and ARM alike",
)
ADD_RELU_REMEDY = (
    "give the tensor after the ReLU zero point 0 in the params file (the int8 recipe of this plugin does), or leave "
    "the layer it feeds float"
)
#: Why a net with upsampling loses accuracy in int8, and what to do; read in MNN 3.6.1's CPUInterp.cpp, and measured.
INT8_INTERP: Final = Cause(
    "interp-keeps-codes",
    "MNN's int8 Interp hands its input's codes on unconverted, so a tensor with another scale holds other values, on "
    "x86 and ARM alike",
)
INT8_INTERP_REMEDY = (
    "give the tensors before and after the Interp one scale (the int8 recipe of this plugin does), or leave the layer "
    "after it float"
)


@dataclass(frozen=True)
class ExecutionEvidence:
    """What ran.

    `trace` is None if MNN gave none; `untraced` says why, if that is the runtime's fault. `same_as_float`: whether all
    outputs equal the float model's in every bit (None: not known). `faults` are operators that ran in int8
    between scales for which MNN computes them wrongly, `int8_scales` Scale operators that ran in int8 (see
    `quantize.unfolded_batchnorm`). `apis` is the difference between MNN's two APIs; None if only one can run the model.
    """

    trace: Sequence[TracedOp] | None
    same_as_float: bool | None
    faults: Int8Faults = NO_FAULTS
    int8_scales: Sequence[str] = ()
    untraced: str = ""
    apis: ApiDifference | None = None


def check_execution(rows: tuple[LayerRow, ...], recipe: Recipe, execution: ExecutionEvidence) -> Result:
    """Judge what ran.

    Weight-only layers run as float operators on decoded weights, so for them the trace proves only that they ran,
    and that the outputs are not the float model's proves that the stored weights were used.
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
    if not layers:
        return Result.from_findings(
            "execution", [Finding("MNQ001", "no layer of the model could be looked for in the trace")], metrics
        )
    findings = [
        Finding("MNQ602", "does not appear in the trace of what ran", row.layer.name)
        for row in layers
        if row.stored and row.stored.name not in ran
    ]
    if recipe.activations:
        findings += _int8(layers, ran, recipe)
        metrics = _with_int8(metrics, layers, ran)
    if execution.int8_scales:
        message = f"{len(execution.int8_scales)} Scale ran in int8"
        findings.append(Finding("MNQ611", message, execution.int8_scales[0], cause=INT8_SCALE, fix=INT8_SCALE_REMEDY))
    faults = execution.faults
    if faults.interps:
        worst = max(faults.interps, key=lambda one: abs(math.log(one.ratio)) if one.ratio > 0 else math.inf)
        message = f"{len(faults.interps)} Interp ran in int8 between two scales: the values come out "
        message += f"{worst.ratio:.3g} times as large"
        findings.append(Finding("MNQ612", message, worst.name, cause=INT8_INTERP, fix=INT8_INTERP_REMEDY))
    if faults.clamping:
        findings.append(
            Finding(
                "MNQ610",
                f"{len(faults.clamping)} residual Add with a fused ReLU ran in int8 with a zero point other than 0",
                faults.clamping[0],
                cause=ADD_RELU,
                fix=ADD_RELU_REMEDY,
            )
        )
    if execution.same_as_float:
        findings.append(_SAME)
    findings += check_apis(
        execution.apis, dict.fromkeys(execution.int8_scales, Explanation(INT8_SCALE, INT8_SCALE_REMEDY))
    )
    return Result.from_findings("execution", findings, metrics)


_SAME: Final = Finding(
    "MNQ603",
    "all outputs equal the float model's in every bit",
    cause=Cause(
        "nothing-quantized-runs", "nothing that runs is quantized: an accuracy check would pass for that reason"
    ),
    fix="see the coverage check for what is stored",
)


def _without_trace(recipe: Recipe, execution: ExecutionEvidence) -> list[Finding]:
    """Of weights alone no more is to be shown than that they are the ones that were used: other outputs show it."""
    if execution.same_as_float:
        return [_SAME]
    if execution.same_as_float is False and not recipe.activations:
        return []
    if execution.untraced:
        return [Finding("MNQ002", execution.untraced, fix="nothing to do: accuracy judges what this runtime computes")]
    return [
        Finding(
            "MNQ002",
            "the model has While or If bodies, for which MNN gives no trace of operators",
            fix="nothing to do: coverage and accuracy judge this model",
        )
    ]


def _int8(layers: list[LayerRow], ran: dict[str, TracedOp], recipe: Recipe) -> list[Finding]:
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
            cause=Cause(
                "no-int-kernel",
                "the runtime had no int8 kernel for it, or its input and output tensors carry no quantization",
            ),
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
