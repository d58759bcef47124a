"""The safetensors format: u64 length of the header, the header in JSON, the tensors.

The header has the dtype, the shape and the data_offsets of each tensor by name.

https://github.com/huggingface/safetensors#format. Files are mapped; a tensor is read some rows at a time.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.llm.json_object import BadExport, JsonObject, parse_json
from pytest_mnnquant.llm.matrix import widen_bfloat16
from pytest_mnnquant.llm.pointers import PROBLEM, is_pointer
from pytest_mnnquant.mnnfile.model import map_bytes
from pytest_mnnquant.mnnfile.storage import Floats

#: dtype -> (numpy type of the stored bytes, bytes of an element).
_TYPES: Final = {
    "F64": ("<f8", 8),
    "F32": ("<f4", 4),
    "F16": ("<f2", 2),
    "BF16": ("<u2", 2),
    "I64": ("<i8", 8),
    "I32": ("<i4", 4),
    "I16": ("<i2", 2),
    "I8": ("i1", 1),
    "U8": ("u1", 1),
    "BOOL": ("u1", 1),
    "F8_E4M3": ("u1", 1),
    "F8_E5M2": ("u1", 1),
}
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_LARGEST_HEADER: Final = 1 << 27


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor of a safetensors file: its type, its shape and its bytes in the file."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int

    @property
    def is_float(self) -> bool:
        """Whether it holds floats of 16, 32 or 64 bits."""
        return self.dtype in _FLOATS


def read_entries(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a file by name. Raises `BadExport` with the file and the tensor, or `OSError`."""
    file, size = path.name, path.stat().st_size
    if is_pointer(path):
        raise BadExport(file, "", PROBLEM)
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise BadExport(file, "", f"a header of {length:,} bytes does not fit into {size:,} bytes: it is cut")
        header = parse_json(stream.read(length), file)
    entries = {}
    for name in header.values:
        if name != "__metadata__":
            entries[name] = _entry(header, name, 8 + length, size)
    return entries


def _entry(header: JsonObject, name: str, start: int, size: int) -> TensorEntry:
    values = header.member(name)
    dtype, shape, offsets = values.text("dtype"), values.integers("shape"), values.integers("data_offsets")
    if dtype not in _TYPES:
        raise header.fault(name, f"{dtype!r} is not a type that can be read")
    if len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1]:
        raise header.fault(name, f"data_offsets {list(offsets)} are not a run of bytes")
    length = offsets[1] - offsets[0]
    if min(shape, default=1) < 0 or math.prod(shape) * _TYPES[dtype][1] != length:
        raise header.fault(name, f"{length:,} bytes are not those of shape {list(shape)} in {dtype}")
    if start + offsets[1] > size:
        raise header.fault(name, f"bytes to {start + offsets[1]:,} are needed, the file has {size:,}: it is cut")
    return TensorEntry(name, header.file, dtype, shape, start + offsets[0], length)


def read_rows(path: Path, entry: TensorEntry, start: int, stop: int) -> Floats:
    """Rows of a float tensor as float32, shape [rows, ...]. Raises `BadExport` for other types."""
    if not entry.is_float:
        raise BadExport(entry.file, entry.name, f"floats are expected, not {entry.dtype}")
    stored = read_integers(path, entry, start, stop)
    values: Floats = widen_bfloat16(stored) if entry.dtype == "BF16" else stored.astype(np.float32)
    return values


def read_integers(path: Path, entry: TensorEntry, start: int, stop: int) -> npt.NDArray[Any]:
    """Rows of a tensor in the stored type (bfloat16 as 16-bit integers), shape [rows, ...]."""
    kind, size = _TYPES[entry.dtype]
    row = math.prod(entry.shape[1:])
    data = map_bytes(path)
    first = entry.offset + start * row * size
    values = np.frombuffer(data, kind, (stop - start) * row, first)
    return values.reshape(stop - start, *entry.shape[1:])
