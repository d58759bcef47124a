"""An evaluation copy of an int8 model whose MaxPool is exact on x86 too.

MNN stores int8 tensors on x86 as bytes offset by 128, but its int8 MaxPool compares them as signed numbers
(`MNNMaxPoolInt8_`, source/backend/cpu/x86_x64/FunctionDispatcher.cpp), so a window with codes of both signs gives the
largest negative one. ARM pools rightly. Where a pool's input and output carry quantization with the same zero point
and scales that differ by 1 in 10,000, MNN pools in float between a dequantization and a requantization, which gives
exactly what ARM gives. The copy differs from the model in that one vector of the file; no weight is touched.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant
from pytest_mnnquant.mnnfile.schema import DATA_TYPES

_SHAPE_ONLY: Final = {"Reshape", "ConvertTensor", "Squeeze", "Unsqueeze", "Flatten", "Permute"}
_SCALE_STEP: Final = 1.0001
_POOL_TYPE, _MAX_POOL = 7, 0
_NUMBERS: Final = {name: number for number, name in DATA_TYPES.items()}


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
            quants[target] = dataclasses.replace(quants[source], scale=quants[source].scale * _SCALE_STEP)
            changed.append(op.name)
    if changed:
        path.write_bytes(_with_quants(model.path.read_bytes(), quants))
        weights = model.external_path
        if weights is not None and weights.exists():
            path.with_name(path.name + ".weight").write_bytes(weights.read_bytes())
    return tuple(changed)


def _downstream(model: Model, tensor: int, quants: dict[int, TensorQuant]) -> TensorQuant | None:
    """The quantization that MNN carries back to a tensor through operators that only change its shape."""
    for op in model.ops:
        if tensor in op.inputs and op.kind in _SHAPE_ONLY and not op.subgraph:
            for output in op.outputs:
                if found := quants.get(output) or _downstream(model, output, quants):
                    return found
    return None


def _with_quants(data: bytes, quants: dict[int, TensorQuant]) -> bytes:
    """Append a new `extraTensorDescribe` vector to the file and point the root table's field 1 at it."""
    out = bytearray(data + bytes(-len(data) % 16))
    net = Table.root(memoryview(data))
    field, vector = net.field(1), len(out)
    count = len(quants)
    # Layout: vector | vtable of TensorDescribe | vtable of TensorQuantInfo | per tensor: describe (12), quant (24).
    vtables = vector + 4 + 4 * count
    tables = vtables + 28
    out += struct.pack("<I", count)
    out += b"".join(struct.pack("<I", tables + 36 * i - (vector + 4 + 4 * i)) for i in range(count))
    out += struct.pack("<7H", 14, 12, 0, 4, 0, 0, 8) + struct.pack("<7H", 14, 24, 4, 8, 12, 16, 20)
    for i, (index, quant) in enumerate(quants.items()):
        at = tables + 36 * i
        out += struct.pack("<iiI", at - vtables, index, 4)
        kind = _NUMBERS.get(quant.data_type, 0)
        out += struct.pack("<iffffi", at + 12 - (vtables + 14), quant.scale, quant.zero, quant.low, quant.high, kind)
    struct.pack_into("<I", out, field, vector - field)
    return bytes(out)


def pools_right() -> bool:
    """Whether this machine's int8 MaxPool is right: it is wrong on x86 only."""
    return os.uname().machine not in ("x86_64", "i386", "i686", "AMD64")
