"""Whether a file says the same about a quantized tensor everywhere: in the layer's parameters and at the tensor itself.

MNN's converter and mnnquant write scale and zero point of a full-int8 layer's input and output twice: into the layer
(IDSTQuan.scaleIn and scaleOut, QuantizedFloatParam.zeroPoint and outputZeroPoint) and into the description of the
tensor (TensorQuantInfo). MNN 3.6.1 computes by the tensor's, other versions by the layer's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant
from pytest_mnnquant.mnnfile.structure import Difference

# Two layers that take one tensor may have seen it a little differently: mnncompress' scales of one differ by 0.1 %.
_TOLERANCE: Final = 0.05
_ZERO_TOLERANCE: Final = 2
# Activations of 1e11 are no network's; what was in memory before is as often larger as smaller than that.
_LARGEST_SCALE: Final = 1e9


def contradictions(model: Model) -> list[Difference]:
    """The layers whose scales or zero points are others than those of the tensors that they take and give.

    So is a layer that is full int8 between tensors that are not, and one whose codes reach further on one side.

    A file in which no tensor is described is left to the runtime, which then computes in float.
    """
    if not model.tensor_quants:
        return []
    return [Difference(op.name, text) for op in _int8_layers(model) if (text := _contradiction(model, op))]


def impossible_scales(model: Model) -> list[Difference]:
    """The layers that take or give a tensor whose scale is infinite, not a number, negative or absurdly large."""
    results = []
    for op in _int8_layers(model):
        for side, quant, scale, _ in _sides(model, op):
            scales = (scale,) if quant is None else (quant.scale, scale)
            if (wrong := next((number for number in scales if not 0 <= number <= _LARGEST_SCALE), None)) is not None:
                results.append(Difference(op.name, f"its {side} has the scale {wrong:.4g}"))
                break
    return results


def zero_points(op: Op) -> tuple[int, int] | None:
    """Zero points of input and output as the layer has them."""
    table = _symmetric(op)
    return None if table is None else (int(table.scalar(6, "i8")), int(table.scalar(7, "i8")))


def clamps(op: Op) -> tuple[int, int] | None:
    """The smallest and largest code that the layer gives."""
    table = _symmetric(op)
    return None if table is None else (int(table.scalar(8, "i8", -128)), int(table.scalar(9, "i8", 127)))


def _symmetric(op: Op) -> Table | None:
    return op.parameters.table(4) if op.parameters and op.parameter_kind == "Convolution2D" else None


def _int8_layers(model: Model) -> list[Op]:
    """Those whose activations are quantized too, largest first."""
    layers = (op for op in model.convolutions if op.weights[0].full_int8 and not op.subgraph)
    return sorted(layers, key=lambda op: -op.weight_count)


def _sides(model: Model, op: Op) -> Iterator[tuple[str, TensorQuant | None, float, int | None]]:
    """(side, what describes its tensor, the layer's scale, the layer's zero point) of input and output."""
    weights, zeros = op.weights[0], zero_points(op)
    for place, (side, tensors, scale) in enumerate(
        (("input", op.inputs, weights.scale_in), ("output", op.outputs, weights.scale_out))
    ):
        if tensors:
            yield side, model.tensor_quants.get(tensors[0]), scale, None if zeros is None else zeros[place]


def _contradiction(model: Model, op: Op) -> str:
    for side, quant, scale, zero in _sides(model, op):
        if quant is None:
            return f"it is full int8, and its {side} tensor carries no quantization"
        if not (math.isfinite(scale) and math.isfinite(quant.scale)):
            continue
        if not abs(quant.scale - scale) <= _TOLERANCE * abs(scale):
            return f"its {side} scale is {scale:.6g}, the tensor's own is {quant.scale:.6g}"
        if abs(quant.low + quant.high) > 1:  # Narrower codes than 8 bits have are narrower on both sides.
            return f"the codes of its {side} go from {quant.low:g} to {quant.high:g}"
        if zero is not None and not abs(quant.zero - zero) <= _ZERO_TOLERANCE:
            return f"its {side} zero point is {zero}, the tensor's own is {quant.zero:g}"
    return ""
