"""Whether a file says the same about a quantized tensor everywhere: in the layer's parameters and at the tensor itself.

MNN's converter and mnnquant write scale and zero point of a full-int8 layer's input and output twice: into the layer
(IDSTQuan.scaleIn and scaleOut, QuantizedFloatParam.zeroPoint and outputZeroPoint) and into the description of the
tensor (TensorQuantInfo). MNN 3.6.1 computes by the tensor's, other versions by the layer's.
"""

from __future__ import annotations

import math
from typing import Final

from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.structure import Difference

# Two layers that take one tensor may have seen it a little differently: mnncompress' scales of one differ by 0.1 %.
_TOLERANCE: Final = 0.05
_ZERO_TOLERANCE: Final = 2


def contradictions(model: Model) -> list[Difference]:
    """The layers whose scales or zero points are others than those of the tensors that they take and give."""
    layers = (op for op in model.convolutions if op.weights[0].full_int8 and not op.subgraph)
    return [Difference(op.name, text) for op in layers if (text := _contradiction(model, op))]


def _contradiction(model: Model, op: Op) -> str:
    weights = op.weights[0]
    zeros = zero_points(op)
    sides = (("input", op.inputs, weights.scale_in, 0), ("output", op.outputs, weights.scale_out, 1))
    for side, tensors, scale, place in sides:
        quant = model.tensor_quants.get(tensors[0]) if tensors else None
        if quant is None or quant.scale == scale or not math.isfinite(scale):
            continue
        if not abs(quant.scale - scale) <= _TOLERANCE * abs(scale):
            return f"its {side} scale is {scale:.6g}, the tensor's own is {quant.scale:.6g}"
        if zeros is not None and abs(quant.zero - zeros[place]) > _ZERO_TOLERANCE:
            return f"its {side} zero point is {zeros[place]}, the tensor's own is {quant.zero:g}"
    return ""


def zero_points(op: Op) -> tuple[int, int] | None:
    """Zero points of input and output as the layer has them."""
    table = op.parameters.table(4) if op.parameters and op.parameter_kind == "Convolution2D" else None
    return None if table is None else (int(table.scalar(6, "i8")), int(table.scalar(7, "i8")))
