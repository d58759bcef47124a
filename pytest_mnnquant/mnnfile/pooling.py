"""An evaluation copy of an int8 model whose MaxPool is exact on x86 too.

MNN stores int8 tensors on x86 as bytes offset by 128, but its int8 MaxPool compares them as signed numbers
(`MNNMaxPoolInt8_`, source/backend/cpu/x86_x64/FunctionDispatcher.cpp), so a window with codes of both signs gives the
largest negative one. ARM pools rightly. Where a pool's input and output carry different quantization, MNN pools in
float between a dequantization and a requantization, which gives exactly what ARM gives. So in the copy the zero point
of the output lies one float32 step beside the input's: MNN compares zero points as floats, and computes with them as
integers, so nothing else of the network changes by a single code (a scale moved by 1 in 10,000 would: the layer after
the pool computes with it). No weight is touched.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np

from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant
from pytest_mnnquant.mnnfile.quants import write_with_quants

#: Operators that change nothing but shape and layout, through which MNN carries a quantization.
SHAPE_ONLY: Final = {"Reshape", "ConvertTensor", "Squeeze", "Unsqueeze", "Flatten", "Permute"}
_TINY: Final = 1e-30
_POOL_TYPE, _MAX_POOL = 7, 0


def is_max_pool(op: Op) -> bool:
    """Whether the operator takes a maximum over windows."""
    return op.kind == "Pooling" and op.parameters is not None and op.parameters.scalar(_POOL_TYPE, "i8") == _MAX_POOL


def write_exact_copy(model: Model, int8_pools: Collection[str], path: Path) -> tuple[str, ...]:
    """Write a copy of `model` to `path` in which the named MaxPool operators pool exactly; returns their names.

    `int8_pools` are the operators that the op trace showed as int8 `Pooling`. Writes nothing when there are none.
    """
    quants = dict(model.tensor_quants)
    changed = []
    for op in model.ops:
        if op.name not in int8_pools or op.subgraph or not is_max_pool(op):
            continue
        source, target = op.inputs[0], op.outputs[0]
        quant = quants.get(source) or quants.get(target) or _downstream(model, target, quants)
        if quant is not None:
            quants[source] = quants.get(source, quant)
            quants[target] = dataclasses.replace(quants[source], zero=_beside(quants[source].zero))
            changed.append(op.name)
    if changed:
        write_with_quants(model, quants, path)
    return tuple(changed)


def _beside(zero: float) -> float:
    """The float32 next to a zero point, away from 0: as an integer it is still the same."""
    near = np.float32(zero)
    return float(np.nextafter(near, np.copysign(np.float32(np.inf), near))) if zero else _TINY


def _downstream(model: Model, tensor: int, quants: dict[int, TensorQuant]) -> TensorQuant | None:
    """The quantization that MNN carries back to a tensor through operators that only change its shape."""
    for op in model.ops:
        if tensor in op.inputs and op.kind in SHAPE_ONLY and not op.subgraph:
            for output in op.outputs:
                if found := quants.get(output) or _downstream(model, output, quants):
                    return found
    return None


def pools_right(machine: str = "") -> bool:
    """Whether the int8 MaxPool of an architecture, this machine's unless told, is right: it is wrong on x86 only."""
    return (machine or os.uname().machine) not in ("x86_64", "i386", "i686", "AMD64")
