"""Copies of a model with another quantization of tensors, for measurements; the weights are unchanged."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import Model, TensorQuant
from pytest_mnnquant.mnnfile.schema import DATA_TYPES

_DESCRIBED: Final = 1
_NUMBERS: Final = {name: number for number, name in DATA_TYPES.items()}


def write_with_quants(model: Model, quants: Mapping[int, TensorQuant], path: Path) -> None:
    """Write a copy of `model` to `path` with the quantizations `quants` of its tensors, by tensor index.

    Without any, MNN decodes the stored weights and computes in float.
    """
    path.write_bytes(with_quants(model.path.read_bytes(), quants))
    weights = model.external_path
    if weights is not None and weights.exists():
        path.with_name(path.name + ".weight").symlink_to(weights.resolve())


def with_quants(data: bytes, quants: Mapping[int, TensorQuant]) -> bytes:
    """A model file's bytes with a new `extraTensorDescribe` vector at their end, to which the root's field 1 points."""
    out = bytearray(data + bytes(-len(data) % 16))
    field, vector = Table.root(memoryview(data)).field(_DESCRIBED), len(out)
    if not field:  # The model describes no tensors.
        return data
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
