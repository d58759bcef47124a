"""Compares the quantization of a tensor in the layer's parameters with the one in the tensor's own description.

MNN's converter and mnnquant write scale and zero point of a full-int8 layer's input and output twice: into the layer
(IDSTQuan.scaleIn and scaleOut, QuantizedFloatParam.zeroPoint and outputZeroPoint) and into the description of the
tensor (TensorQuantInfo). MNN 3.6.1 uses the tensor's values, other versions use the layer's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant
from pytest_mnnquant.mnnfile.structure import Difference

# Two layers with the same input may have slightly different scales: mnncompress' scales differ by 0.1 %.
_TOLERANCE: Final = 0.05
_ZERO_TOLERANCE: Final = 2
# No network has activations of 1e11; uninitialized memory is often larger than that.
_LARGEST_SCALE: Final = 1e9


def contradictions(model: Model) -> list[Difference]:
    """The layers whose scales or zero points differ from those of their input and output tensors.

    Also full-int8 layers with tensors that are not quantized, and tensors with an asymmetric range of codes.

    Empty for a file without any described tensor, since the runtime then computes in float.
    """
    if not model.tensor_quants:
        return []
    return [Difference(op.name, text) for op in _int8_layers(model) if (text := _contradiction(model, op))]


def impossible_scales(model: Model) -> list[Difference]:
    """The layers with an input or output tensor whose scale is infinite, NaN, negative or absurdly large."""
    results = []
    for op in _int8_layers(model):
        for side, quant, scale, _ in _sides(model, op):
            scales = (scale,) if quant is None else (quant.scale, scale)
            if (wrong := next((number for number in scales if not 0 <= number <= _LARGEST_SCALE), None)) is not None:
                results.append(Difference(op.name, f"its {side} tensor has scale {wrong:.4g}"))
                break
    return results


def zero_points(op: Op) -> tuple[int, int] | None:
    """Zero points of input and output in the layer's parameters."""
    table = _symmetric(op)
    return None if table is None else (int(table.scalar(6, "i8")), int(table.scalar(7, "i8")))


def clamps(op: Op) -> tuple[int, int] | None:
    """The smallest and the largest code of the layer's output."""
    table = _symmetric(op)
    return None if table is None else (int(table.scalar(8, "i8", -128)), int(table.scalar(9, "i8", 127)))


def _symmetric(op: Op) -> Table | None:
    return op.parameters.table(4) if op.parameters and op.parameter_kind == "Convolution2D" else None


def _int8_layers(model: Model) -> list[Op]:
    """The layers with quantized activations, largest first."""
    layers = (op for op in model.convolutions if op.weights[0].full_int8 and not op.subgraph)
    return sorted(layers, key=lambda op: -op.weight_count)


def _sides(model: Model, op: Op) -> Iterator[tuple[str, TensorQuant | None, float, int | None]]:
    """(side, description of the tensor, the layer's scale, the layer's zero point) of input and output."""
    weights, zeros = op.weights[0], zero_points(op)
    for place, (side, tensors, scale) in enumerate(
        (("input", op.inputs, weights.scale_in), ("output", op.outputs, weights.scale_out))
    ):
        if tensors:
            yield side, model.tensor_quants.get(tensors[0]), scale, None if zeros is None else zeros[place]


def _contradiction(model: Model, op: Op) -> str:
    for side, quant, scale, zero in _sides(model, op):
        if quant is None:
            return f"it is full int8, but its {side} tensor has no quantization"
        if not (math.isfinite(scale) and math.isfinite(quant.scale)):
            continue
        if not abs(quant.scale - scale) <= _TOLERANCE * abs(scale):
            return f"its {side} scale is {scale:.6g}, the tensor's scale is {quant.scale:.6g}"
        if abs(quant.low + quant.high) > 1:  # Codes with fewer than 8 bits are narrower on both sides.
            return f"the codes of its {side} range from {quant.low:g} to {quant.high:g}"
        if zero is not None and not abs(quant.zero - zero) <= _ZERO_TOLERANCE:
            return f"its {side} zero point is {zero}, the tensor's zero point is {quant.zero:g}"
    return ""
