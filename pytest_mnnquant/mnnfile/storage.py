"""The forms in which an operator's weights are stored, decoded back to float32.

Formats as MNN's `ConvolutionCommon::load` reads them (source/core/ConvolutionCommon.cpp). All shapes are
[output channels, weights per output channel].
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.codes import (
    MOST_SPARSE,
    Codes,
    dense_codes,
    integer_header,
    sparse_codes,
    sparse_header,
    unpack_codes,
)
from pytest_mnnquant.mnnfile.flatbuffer import BadModel, Table

Floats = npt.NDArray[np.float32]


class Storage(str, enum.Enum):
    """The storage of weights in the file."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INTEGER = "integer"
    SPARSE_INTEGER = "sparse integer"
    SPARSE_FLOAT = "sparse float"
    OTHER = "other"


class Kind(enum.IntEnum):
    """The values of IDSTQuan's field `type`. Up to MNN 3.2, params files gave PLAIN weights."""

    SPARSE_FLOAT = 0
    DENSE = 1
    SPARSE = 2
    HALF = 3
    PLAIN = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """The stored weights of one operator.

    `count` weights of `bits` bits each; `size` counts all bytes that store them: codes, headers, scales, offsets.
    `block` is the number of weights per scale, None for one scale per channel. `full_int8`: activations are quantized
    too, so the runtime may compute in int8. `intact` is False if the length of the code buffer does not match its
    header. `scale_in` and `scale_out` are the scales of the input and output tensor of a full-int8 layer, else 0.
    `of_product`: the file has no separate scale of the weights. `half_scales`: scales are 16-bit floats.
    """

    storage: Storage
    bits: int
    count: int
    size: int
    channels: int = 0
    asymmetric: bool = False
    block: int | None = None
    full_int8: bool = False
    scale_in: float = 0.0
    scale_out: float = 0.0
    intact: bool = True
    external: tuple[int, ...] = ()
    of_product: bool = False
    half_scales: bool = False
    _source: Any = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """A short name for tables: `int8`, `w4 block 32`, `float32`, ..."""
        if self.storage is not Storage.INTEGER:
            return str(self.storage.value)
        if self.full_int8:
            return f"int{self.bits}"
        return f"w{self.bits}" + (f" block {self.block}" if self.block else "")

    def decoded(self, external: memoryview | None = None) -> Floats:
        """The weights as float32, shape [channels, weights per channel] (flat for constants).

        `external` is the mapped `.mnn.weight` file. Raises `BadModel` if the data are missing or inconsistent.
        """
        return _decode(self, external)

    def steps(self, external: memoryview | None = None) -> Floats:
        """Quantization step of each scale group in file order, shape [channels * blocks]; empty for float storage."""
        if self.storage not in (Storage.INTEGER, Storage.SPARSE_INTEGER) or self.of_product:
            return np.empty(0, np.float32)
        return np.abs(_scales(self, self._source, external)[:, -1])


@dataclass(frozen=True, slots=True)
class Affine:
    """Integer weights as codes: value = code * scale + offset.

    `codes` has shape [groups, weights per group], `scales` and `offsets` [groups]; `codes` may be a view of the file.
    """

    codes: npt.NDArray[Any]
    scales: Floats
    offsets: Floats


def affine(weights: Weights, external: memoryview | None) -> Affine:
    """Codes, scales and offsets of integer weights. Raises `BadModel` if they are missing or inconsistent."""
    codes, pairs = _grouped(weights, external)
    scales, offsets = pairs[:, -1], np.zeros(len(pairs), np.float32)
    if weights.asymmetric:
        with np.errstate(over="ignore", invalid="ignore"):
            offsets = pairs[:, 0] - _lowest(weights) * scales
    return Affine(codes, scales, offsets)


def is_first_plain(table: Table) -> bool:
    """Whether an IDSTQuan table has the first form of PLAIN weights: always asymmetric, no factor for the scales."""
    return int(table.scalar(2, "i32")) == Kind.PLAIN and not table.scalar(8, "i32") and not table.scalar(4, "f32")


def _decode(weights: Weights, external: memoryview | None) -> Floats:
    source = weights._source
    if isinstance(source, tuple):
        table, *slots = source
        parts = [table.array(slot, "<f4" if weights.storage is Storage.FLOAT32 else "<u1") for slot in slots]
        flat = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if flat.size == 0 and weights.external:
            dtype, last = "<f4" if weights.bits == 32 else "<u1", min(len(slots) + 1, max(2, len(weights.external)))
            flat = np.concatenate([_external(weights, external, part, dtype) for part in range(1, last)])
        return _viewed(flat, "<f2").astype(np.float32) if weights.storage is Storage.FLOAT16 else flat
    if source is None:
        raise BadModel("this operator has no weights to decode")
    if weights.storage is Storage.FLOAT32:
        flat = source.array(1, "<f4")
        flat = flat if flat.size else _external(weights, external, 1, "<f4")
    elif weights.storage is Storage.FLOAT16:
        flat = _viewed(_code_bytes(weights, source, external), "<f2").astype(np.float32)
    elif weights.storage is Storage.SPARSE_FLOAT:
        flat = _scattered(weights, source, external)
    else:
        flat = _dequantized(weights, external)
    return flat.reshape(weights.channels, -1) if weights.channels > 0 and flat.size % weights.channels == 0 else flat


def _viewed(data: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[Any]:
    if data.size % np.dtype(dtype).itemsize:
        raise BadModel(f"{data.size} bytes are not a whole number of weights")
    return data.view(dtype)


def _external(weights: Weights, external: memoryview | None, part: int, dtype: str) -> npt.NDArray[Any]:
    if external is None:
        raise BadModel("the .mnn.weight file with the weights is missing")
    if part >= len(weights.external):
        raise BadModel("the position of the weights in the .mnn.weight file is missing")
    start = weights.external[0] + sum(weights.external[1:part])
    size = weights.external[part]
    if start < 0 or size < 0 or start + size > len(external):
        raise BadModel(f"the .mnn.weight file has {len(external)} bytes, required {start + size}")
    return _viewed(np.frombuffer(external, np.uint8, size, start), dtype)


def _code_bytes(weights: Weights, table: Table, external: memoryview | None) -> npt.NDArray[np.uint8]:
    buffer = table.array(0, "u1")
    return buffer if buffer.size else _external(weights, external, 1, "u1")


def _grouped(weights: Weights, external: memoryview | None) -> tuple[Codes, Floats]:
    """Codes, shape [groups, weights per group], and [minimum, scale] or [scale] of each group."""
    table = weights._source
    if weights.of_product or weights.storage not in (Storage.INTEGER, Storage.SPARSE_INTEGER) or table is None:
        raise BadModel(f"weights stored as {weights.storage.value!r} without a separate scale can't be decoded")
    pairs = _scales(weights, table, external)
    codes = _codes(weights, table, external, pairs)
    count = codes.size
    if weights.channels <= 0 or count % weights.channels or not count or count % len(pairs):
        raise BadModel(f"{len(pairs)} scales and {weights.channels} channels do not divide {count} weights")
    return codes.reshape(len(pairs), -1), pairs


def _lowest(weights: Weights) -> np.float32:
    """The code of the minimum. MNN reads 0 as -128, and ignores positive numbers."""
    return np.float32(min(int(weights._source.scalar(8, "i32")) or -128, 0))


def _dequantized(weights: Weights, external: memoryview | None) -> Floats:
    codes, pairs = _grouped(weights, external)
    blocks = codes.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # Absurd scales give infinity, which the weights check reports.
        if weights.asymmetric:  # In the same order as MNN.
            values: Floats = (blocks - _lowest(weights)) * pairs[:, 1:] + pairs[:, :1]
            return values
        return blocks * pairs


def _codes(weights: Weights, table: Table, external: memoryview | None, pairs: Floats) -> Codes:
    buffer, wide = _code_bytes(weights, table, external), bool(table.scalar(11, "u8"))
    if int(table.scalar(2, "i32")) == Kind.PLAIN:
        return buffer.view(np.int8)
    if weights.storage is Storage.INTEGER:
        return dense_codes(buffer, wide)
    head = sparse_header(buffer, wide)
    if head.count != weights.count or len(pairs) != head.groups or head.count % head.groups:
        raise BadModel(f"{len(pairs)} scales for {head.count} sparse weights in {head.groups} groups")
    zeros = np.zeros(len(pairs), np.int64)
    if weights.asymmetric:  # Zero is stored as its nearest code; a group without a scale has zero at the minimum.
        with np.errstate(all="ignore"):
            zero = -pairs[:, 0] / pairs[:, 1]
            nearest = np.trunc(zero + np.copysign(np.float32(0.5), zero))
        zeros = np.where((pairs[:, 1] > 1e-6) & (np.abs(nearest) < 1e6), nearest, 0).astype(np.int64)
        zeros -= 1 << head.bits - 1
    return sparse_codes(buffer, head, zeros.astype(np.int8))


def _scattered(weights: Weights, table: Table, external: memoryview | None) -> Floats:
    """The nonzero values at their positions, all others zero."""
    places, values = table.array(13, "<u4"), table.array(1, "<f4")
    if not places.size and weights.external:
        values, places = _external(weights, external, 2, "<f4"), _external(weights, external, 4, "<u4")
    count = weights.count if weights.intact and 0 < weights.count <= MOST_SPARSE else 0
    if len(places) != len(values) or (places >= count).any() or count % max(1, weights.channels) or not count:
        raise BadModel(f"{len(values)} values and {len(places)} positions do not match {weights.count} sparse weights")
    dense = np.zeros(count, np.float32)
    dense[places] = values
    return dense


def _scales(weights: Weights, table: Table, external: memoryview | None) -> Floats:
    """[minimum, scale] (asymmetric) or [scale] of each group, from MNN's storage: float32, float16 or external."""
    half = int(table.scalar(15, "i8")) == 1
    dtype = "<f2" if half else "<f4"
    alpha = table.array(14 if half else 1, dtype)
    alpha = alpha if alpha.size or not weights.external else _external(weights, external, 2, dtype)
    columns = 2 if weights.asymmetric else 1
    if not alpha.size or alpha.size % columns:
        raise BadModel(f"{alpha.size} scale values, required a multiple of {columns}")
    pairs = alpha.astype(np.float32).reshape(-1, columns)
    factor = np.float32(table.scalar(4, "f32"))
    if weights.full_int8 or table.scalar(10, "u8") or factor == 1 or is_first_plain(table):
        return pairs
    with np.errstate(over="ignore", invalid="ignore"):
        return pairs * factor


__all__ = ["Floats", "Kind", "Storage", "Weights", "integer_header", "is_first_plain", "unpack_codes"]
