"""Copies of a float model with other weights and biases; all else stays byte for byte the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.storage import Floats

_WEIGHTS, _BIASES = 1, 2
#: The float values of a constant.
_VALUES: Final = 7
_FLOAT: Final = 4


def is_rewritable(op: Op) -> bool:
    """Whether the file itself holds the float weights and the biases of this convolution."""
    return (
        op.parameter_kind == "Convolution2D"
        and op.parameters is not None
        and len(op.weights) == 1
        and op.parameters.span(_WEIGHTS, _FLOAT)[1] == op.weights[0].count
        and op.parameters.span(_BIASES, _FLOAT)[1] == op.shape[0]
    )


def biases(op: Op) -> Floats:
    """The biases of a convolution that is rewritable, shape [output channels]."""
    assert op.parameters is not None
    return op.parameters.array(_BIASES, "<f4")


def with_values(
    model: Model,
    weights: Mapping[str, Floats],
    shifts: Mapping[str, Floats],
    constants: Mapping[str, Floats] | None = None,
) -> bytes:
    """The file's bytes with other weights and biases (`shifts`) of rewritable layers of the main graph, by name.

    `constants`: other values of constants, by name.
    """
    data = bytearray(model.path.read_bytes())
    replaced = constants or {}
    for op in model.ops:
        if op.kind == "Const" and not op.subgraph and op.name in replaced and op.parameters is not None:
            position, count = op.parameters.span(_VALUES, _FLOAT)
            data[position : position + count * _FLOAT] = np.ascontiguousarray(replaced[op.name], "<f4").tobytes()
    for op in model.convolutions:
        for slot, values in ((_WEIGHTS, weights.get(op.name)), (_BIASES, shifts.get(op.name))):
            if values is None or op.parameters is None:
                continue
            position, count = op.parameters.span(slot, _FLOAT)
            if count != values.size:
                raise ValueError(f"{op.name}: {values.size} values for {count}")
            data[position : position + count * _FLOAT] = np.ascontiguousarray(values, "<f4").tobytes()
    return bytes(data)
