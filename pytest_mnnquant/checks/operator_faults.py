"""Operators without weights that MNN computes wrongly in int8: causes, fixes and findings."""

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
    "MNN's int8 Scale (a BatchNorm that does not follow a convolution) ignores its input: each output channel is "
    "constant, on x86 and on ARM",
)
INT8_SCALE_REMEDY = (
    "export that BatchNorm as a multiplication and an addition (the int8 recipe does so for PyTorch sources), or leave "
    "the layer after it float"
)
#: Why a residual net loses accuracy in int8, and what to do; measured on x86 and on ARM, MNN 3.6.1.
ADD_RELU: Final = Cause(
    "add-relu-clamps",
    "MNN's int8 Add with a fused ReLU clamps at code 0 instead of the zero point, which raises small values to the "
    "middle of the range, on x86 and on ARM",
)
ADD_RELU_REMEDY = (
    "give the tensor after the ReLU zero point 0 in the params file (the int8 recipe of this plugin does), or leave "
    "the layer it feeds float"
)
#: Why a net with upsampling loses accuracy in int8, and what to do; read in MNN 3.6.1's CPUInterp.cpp, and measured.
INT8_INTERP: Final = Cause(
    "interp-keeps-codes",
    "MNN's int8 Interp copies the codes of its input without rescaling them, so an output with another scale has wrong "
    "values, on x86 and on ARM",
)
INT8_INTERP_REMEDY = (
    "give the tensors before and after the Interp the same scale (the int8 recipe of this plugin does), or leave the "
    "layer after it float"
)
#: Why a net with a bilinear resize is ruined on ARM; read in MNN 3.6.1's MNNBilinearSampleC8.S, and measured.
INT8_RESIZE: Final = Cause(
    "resize-signed-factor",
    "MNN's int8 bilinear resize on aarch64 inverts the sign of columns that lie on an input column, and computes "
    "columns after the last multiple of 4 with wrong factors; x86 does not",
)
INT8_RESIZE_REMEDY = (
    "--mnn-recipe=int8, which keeps such resizes float; or use mode='nearest'; or resize to a width that is a multiple "
    "of 4, by a factor of 2, without align_corners"
)
#: Why int8 MaxPool is wrong on x86; read in MNN 3.6.1's FunctionDispatcher.cpp, and measured.
X86_MAX_POOL: Final = Cause(
    "max-pool-compares-signed",
    "MNN's int8 MaxPool on x86 compares offset bytes as signed numbers; ARM's does not",
)
X86_MAX_POOL_REMEDY = "judge on ARM: run pytest-mnnquant target add aarch64, then add --mnn-target=aarch64"


def fault_findings(faults: Int8Faults, *, on_arm: bool = False) -> list[Finding]:
    """A warning for each kind of operator that MNN computes wrongly; `accuracy` fails if that is harmful.

    `on_arm`: whether the outputs were computed on aarch64. On other hosts, `accuracy` can't see what is wrong on
    aarch64 only, so that is an error.
    """
    findings = []
    if faults.resizes:
        widest = max(faults.resizes, key=lambda resize: resize.columns / resize.width)
        message = (
            f"{_counted(len(faults.resizes), 'bilinear Interp operator')} ran in int8, of which ARM computes "
            f"{widest.columns} of {widest.width} columns wrongly"
        )
        findings.append(
            Finding("MNQ613", message, widest.name, cause=INT8_RESIZE, fix=INT8_RESIZE_REMEDY, as_warning=on_arm)
        )
    if faults.scales:
        message = f"{_counted(len(faults.scales), 'Scale operator')} ran in int8"
        findings.append(Finding("MNQ611", message, faults.scales[0], cause=INT8_SCALE, fix=INT8_SCALE_REMEDY))
    if faults.interps:
        worst = max(faults.interps, key=_misreading)
        message = (
            f"{_counted(len(faults.interps), 'Interp operator')} ran in int8 between different scales, which makes "
        )
        message += f"the values {worst.ratio:.3g} times as large"
        findings.append(Finding("MNQ612", message, worst.name, cause=INT8_INTERP, fix=INT8_INTERP_REMEDY))
    if faults.clamping:
        message = (
            f"{_counted(len(faults.clamping), 'residual Add operator')} with a fused ReLU ran in int8 with a zero "
        )
        message += "point other than 0"
        findings.append(Finding("MNQ610", message, faults.clamping[0], cause=ADD_RELU, fix=ADD_RELU_REMEDY))
    return findings


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def explanations(faults: Int8Faults, wrong_pools: Iterable[str] = ()) -> dict[str, Explanation]:
    """The cause and fix for each operator that MNN computes wrongly. `wrong_pools` are int8 MaxPools on x86."""
    return {
        **dict.fromkeys(wrong_pools, Explanation(X86_MAX_POOL, X86_MAX_POOL_REMEDY)),
        **dict.fromkeys(faults.clamping, Explanation(ADD_RELU, ADD_RELU_REMEDY)),
        **{interp.name: Explanation(INT8_INTERP, INT8_INTERP_REMEDY) for interp in faults.interps},
        **dict.fromkeys(faults.scales, Explanation(INT8_SCALE, INT8_SCALE_REMEDY)),
    }


def _misreading(interp: MisreadInterp) -> float:
    return abs(math.log(interp.ratio)) if interp.ratio > 0 else math.inf
