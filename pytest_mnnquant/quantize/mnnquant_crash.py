"""The operator on which mnnquant's KL crashes, from two faults in MNN 3.6.1's tools/quantization/calibration.cpp.

For each Raster and Pooling that MNN runs, KL takes the first input that is a tensor of the file, without a check that
one exists (`_collectFeatureMapsDistribution`; fixed later, #4711). None exists if MNN computes an operator in several
steps, since the values between them are not in the file. None exists either if all inputs are copies: on CPUs with
AVX2, MNN runs some operators on its plain backend, and copies what they made.

Afterwards KL makes a table of int8 results for each UnaryOp, and calls a null pointer for those that it has no function
for (`ComputeUnaryBuffer`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pytest_mnnquant.mnnfile.commands import RASTER, Command, possible_commands
from pytest_mnnquant.mnnfile.model import Model, Op

_READS_FIRST_INPUT: Final = frozenset({RASTER, "Pooling"})
#: Operators with results in MNN's packed layout that its AVX2 backend leaves to the plain one.
_COPIED: Final = frozenset({"Interp", "Interp3D", "Resize", "ELU", "Selu"})
#: FLOOR, CEIL, BNLL, ROUND and GELU_STANDARD, as numbers of MNN's schema.
_WITHOUT_TABLE: Final = frozenset({2, 3, 17, 23, 33})
# Slots of the operation of a UnaryOp, of the axes of a Reduction, and of the flag of a pool over everything.
_OPERATION, _AXES, _IS_GLOBAL = 0, 1, 5


def crashing_operator(model: Model) -> Op | None:
    """The first operator on which KL is known to crash; None if no such operator is known."""
    forms = possible_commands(model)
    calibrated = (_first(model, steps) for steps in forms)
    return next((op for op in calibrated if op is not None), None) or _without_table(forms[0])


def _first(model: Model, steps: Sequence[Command]) -> Op | None:
    makers = {step.output: step.op for step in steps if step.kind != RASTER}
    for step in steps:
        if step.kind != RASTER and _is_computed_in_steps(model, step.op):
            return step.op
        if step.kind in _READS_FIRST_INPUT and step.inputs:
            sources = [makers.get(tensor) for tensor in step.inputs]
            if all(source is not None and source.kind in _COPIED for source in sources):
                return sources[0]
    return None


def _without_table(steps: Sequence[Command]) -> Op | None:
    return next((step.op for step in steps if step.kind == "UnaryOp" and _operation(step.op) in _WITHOUT_TABLE), None)


def _operation(op: Op) -> int:
    return -1 if op.parameters is None else int(op.parameters.scalar(_OPERATION, "i32"))


def _is_computed_in_steps(model: Model, op: Op) -> bool:
    if op.kind == "Pooling3D":
        return op.parameters is not None and not op.parameters.scalar(_IS_GLOBAL, "u8")
    return op.kind == "CumSum" or (op.kind == "Reduction" and _axes(model, op) != 1)


def _axes(model: Model, op: Op) -> int:
    """The number of axes of a Reduction; 1 if it is not known before a run. None in the file stands for all axes."""
    if len(op.inputs) < 2:
        return 0 if op.parameters is None else len(op.parameters.ints(_AXES))
    shape = next((other.shape for other in model.ops if other.kind == "Const" and op.inputs[1] in other.outputs), (1,))
    return math.prod(shape)
