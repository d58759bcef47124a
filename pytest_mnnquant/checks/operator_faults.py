"""Operators without weights that MNN computes wrongly in int8: why, what to do, and the findings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.mnnfile.int8_faults import Int8Faults, MisreadInterp

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
#: Why int8 MaxPool is wrong on x86; read in MNN 3.6.1's FunctionDispatcher.cpp, and measured.
X86_MAX_POOL: Final = Cause(
    "max-pool-compares-signed",
    "MNN's int8 MaxPool on x86 compares offset bytes as signed numbers; ARM's does not",
)
X86_MAX_POOL_REMEDY = "judge on ARM: --mnn-target=aarch64 (pytest-mnnquant target add aarch64)"


def fault_findings(faults: Int8Faults) -> list[Finding]:
    """A warning for each kind of operator that MNN computes wrongly; `accuracy` fails if it does harm."""
    findings = []
    if faults.scales:
        message = f"{len(faults.scales)} Scale ran in int8"
        findings.append(Finding("MNQ611", message, faults.scales[0], cause=INT8_SCALE, fix=INT8_SCALE_REMEDY))
    if faults.interps:
        worst = max(faults.interps, key=_misreading)
        message = f"{len(faults.interps)} Interp ran in int8 between two scales: the values come out "
        message += f"{worst.ratio:.3g} times as large"
        findings.append(Finding("MNQ612", message, worst.name, cause=INT8_INTERP, fix=INT8_INTERP_REMEDY))
    if faults.clamping:
        message = f"{len(faults.clamping)} residual Add with a fused ReLU ran in int8 with a zero point other than 0"
        findings.append(Finding("MNQ610", message, faults.clamping[0], cause=ADD_RELU, fix=ADD_RELU_REMEDY))
    return findings


def explanations(faults: Int8Faults, wrong_pools: Iterable[str] = ()) -> dict[str, Explanation]:
    """For each operator that MNN computes wrongly, why and what to do. `wrong_pools` are int8 MaxPools on x86."""
    return {
        **dict.fromkeys(wrong_pools, Explanation(X86_MAX_POOL, X86_MAX_POOL_REMEDY)),
        **dict.fromkeys(faults.clamping, Explanation(ADD_RELU, ADD_RELU_REMEDY)),
        **{interp.name: Explanation(INT8_INTERP, INT8_INTERP_REMEDY) for interp in faults.interps},
        **dict.fromkeys(faults.scales, Explanation(INT8_SCALE, INT8_SCALE_REMEDY)),
    }


def _misreading(interp: MisreadInterp) -> float:
    return abs(math.log(interp.ratio)) if interp.ratio > 0 else math.inf
