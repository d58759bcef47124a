"""How the weights of one operator are stored: read from its parameters, decoded back to float32.

Formats as MNN's `ConvolutionCommon::load` reads them (source/core/ConvolutionCommon.cpp) and its converter's
`IDSTEncoder` writes them. All shapes are [output channels, weights per output channel].
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.flatbuffer import BadModel, Table, unpack

Floats = npt.NDArray[np.float32]
# Sparse weights are not bounded by the file's size; no layer on a phone has more than this.
_MOST_SPARSE = 1 << 28


class Storage(str, enum.Enum):
    """The form in which weights lie in the file."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INTEGER = "integer"
    SPARSE_INTEGER = "sparse integer"
    SPARSE_FLOAT = "sparse float"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Weights:
    """The stored weights of one operator.

    `count` weights of `bits` bits each; `size` counts all bytes that store them: codes, headers, scales, offsets.
    `block` is the number of weights that share a scale, None where a whole channel does. `full_int8` tells that
    activations are quantized too, so that the runtime may compute in int8. `intact` is False when the code buffer
    does not have the length that its own header asks for. `scale_in` and `scale_out` are the scales of the input and
    output tensor of a full-int8 layer, else 0.
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

        `external` is the mapped `.mnn.weight` file. Raises `BadModel` where the data are missing or inconsistent.
        """
        return _decode(self, external)

    def steps(self, external: memoryview | None = None) -> Floats:
        """Quantization step of each scale group in file order, shape [channels * blocks]; empty for float storage."""
        if self.storage not in (Storage.INTEGER, Storage.SPARSE_INTEGER):
            return np.empty(0, np.float32)
        return np.abs(_scales(self, self._source, external)[:, -1])


def integer_header(buffer: npt.NDArray[np.uint8], wide: bool) -> tuple[tuple[int, ...], npt.NDArray[np.int8], int]:
    """Shape, code book and header length of an IDST buffer: u8 rank, dimensions, u8 entries (0: 256), the entries."""
    view = memoryview(buffer.data)
    rank = int(unpack("u8", view, 0))
    if not 1 <= rank <= 4:
        raise BadModel(f"a weight buffer says it has {rank} dimensions")
    kind, size = ("u32", 4) if wide else ("u16", 2)
    shape = tuple(int(unpack(kind, view, 1 + size * axis)) for axis in range(rank))
    at = 1 + size * rank
    entries = int(unpack("u8", view, at)) or 256
    if at + 1 + entries > len(buffer):
        raise BadModel("a weight buffer ends within its code book")
    return shape, buffer[at + 1 : at + 1 + entries].view(np.int8), at + 1 + entries


def unpack_codes(packed: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """`count` codes of `bits` bits (1 to 8) each, packed with the most significant bit first."""
    packed = packed[: math.ceil(bits * count / 8)]
    if bits == 8:
        return packed[:count]
    if bits == 4:
        pairs = np.empty((packed.size, 2), np.uint8)
        pairs[:, 0], pairs[:, 1] = packed >> 4, packed & 15
        return pairs.reshape(-1)[:count]
    flags = np.unpackbits(packed)[: bits * count].reshape(count, bits)
    packed_bytes: npt.NDArray[np.uint8] = np.packbits(flags, axis=1).reshape(count) >> np.uint8(8 - bits)
    return packed_bytes


def convolution_weights(table: Table) -> Weights | None:
    """The weights of a Convolution2D table (convolutions, deconvolutions and the Linear layers made into them)."""
    common, quantized, symmetric = table.table(0), table.table(3), table.table(4)
    channels = int(common.scalar(10, "i32")) if common else 0
    external = tuple(int(value) for value in table.array(6, "<i8"))
    plain = table.span(1, 4)[1]
    if quantized is None:
        count = plain or (external[1] // 4 if len(external) > 1 else 0)
        return (
            Weights(Storage.FLOAT32, 32, count, 4 * count, channels, external=external, _source=table)
            if count
            else None
        )
    return _quantized(quantized, channels, external, symmetric is not None, _expected_count(common) if common else 0)


def inner_product_weights(table: Table) -> Weights | None:
    """The weights of an InnerProduct table (Caffe and TFLite sources)."""
    channels, count = int(table.scalar(0, "i32")), table.span(3, 4)[1]
    quantized = table.table(7)
    if quantized is not None and not count:
        return _quantized(quantized, channels, (), False)
    return Weights(Storage.FLOAT32, 32, count, 4 * count, channels, _source=(table, 3)) if count else None


def vector_weights(table: Table, slots: tuple[int, ...], external_slot: int | None) -> Weights | None:
    """Float vectors that lie straight in an operator's parameters (MatMul, Scale, LayerNorm, PReLU, ...)."""
    external = () if external_slot is None else tuple(int(value) for value in table.array(external_slot, "<i8"))
    count = sum(table.span(slot, 4)[1] for slot in slots) or sum(external[1:]) // 4
    if not count:
        return None
    return Weights(Storage.FLOAT32, 32, count, 4 * count, external=external, _source=(table, *slots))


def blob_weights(blob: Table) -> Weights | None:
    """The numbers of a Blob (constants; the weights of RNN operators). Integer blobs are indexes, not weights: None."""
    data_type = int(blob.scalar(2, "i32", 1))
    external = tuple(int(value) for value in blob.array(9, "<i8"))
    if data_type == 1:
        count = blob.span(7, 4)[1] or (external[1] // 4 if len(external) > 1 else 0)
        return Weights(Storage.FLOAT32, 32, count, 4 * count, external=external, _source=(blob, 7)) if count else None
    if data_type == 19:
        size = blob.span(3, 1)[1] or (external[1] if len(external) > 1 else 0)
        return Weights(Storage.FLOAT16, 16, size // 2, size, external=external, _source=(blob, 3)) if size else None
    return None


def _expected_count(common: Table) -> int:
    kernel = int(common.scalar(2, "i32", 1)) * int(common.scalar(3, "i32", 1))
    group = max(1, int(common.scalar(9, "i32", 1)))
    return int(common.scalar(10, "i32")) * max(1, int(common.scalar(11, "i32")) // group) * kernel


def _quantized(
    table: Table, channels: int, external: tuple[int, ...], symmetric_quan: bool, expected: int = 0
) -> Weights:
    """`expected` weights follow from the layer's shape; they count where the codes lie in the `.mnn.weight` file."""
    kind, code_bytes = int(table.scalar(2, "i32")), table.span(0, 1)[1]
    alpha32, alpha16 = table.span(1, 4)[1], table.span(14, 2)[1]
    alphas = alpha32 or alpha16 or (external[2] // 4 if len(external) > 2 else 0)
    size = (
        (code_bytes or (external[1] if len(external) > 1 else 0))
        + (2 * alpha16 or 4 * alphas)
        + 4 * table.span(13, 4)[1]
    )
    asymmetric = int(table.scalar(9, "i32")) != 0
    bits = int(table.scalar(7, "i32"))
    scale_in, scale_out = float(table.scalar(5, "f32")), float(table.scalar(6, "f32"))
    full = symmetric_quan and scale_in != 0
    common: dict[str, Any] = {"size": size, "channels": channels, "external": external, "_source": table}
    if kind == 3:
        return Weights(Storage.FLOAT16, 16, (code_bytes or size) // 2, **common)
    if kind == 0:
        return Weights(Storage.SPARSE_FLOAT, 32, int(table.scalar(12, "u32")) or expected, **common)
    if kind not in (1, 2):
        return Weights(Storage.OTHER, bits, code_bytes, **common)
    count, intact, codes = expected, bool(external), bits
    if code_bytes:
        try:
            shape, book, header = integer_header(table.array(0, "u1"), bool(table.scalar(11, "u8")))
            count, codes = math.prod(shape), max(1, (book.size - 1).bit_length())
            intact = kind == 2 or header + math.ceil(codes * count / 8) == code_bytes
        except BadModel:  # MNN's converter may leave raw floats there: the layer is broken, not the file.
            intact = False
        if not intact:
            count, codes = expected, bits  # What a broken header says is not believed.
    blocks = alphas // (2 if asymmetric else 1) // channels if channels else 0
    block = count // channels // blocks if blocks > 1 else None
    storage = Storage.INTEGER if kind == 1 else Storage.SPARSE_INTEGER
    return Weights(
        storage,
        codes,
        count,
        asymmetric=asymmetric,
        block=block,
        full_int8=full,
        scale_in=scale_in,
        scale_out=scale_out,
        intact=intact,
        **common,
    )


def _decode(weights: Weights, external: memoryview | None) -> Floats:
    source = weights._source
    if isinstance(source, tuple):
        table, *slots = source
        parts = [table.array(slot, "<f4" if weights.storage is Storage.FLOAT32 else "<u1") for slot in slots]
        flat = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if flat.size == 0 and weights.external:
            flat = _external(weights, external, 1, "<f4" if weights.bits == 32 else "<u1")
        return _viewed(flat, "<f2").astype(np.float32) if weights.storage is Storage.FLOAT16 else flat
    if source is None:
        raise BadModel("this operator has no weights to decode")
    if weights.storage is Storage.FLOAT32:
        flat = source.array(1, "<f4")
        flat = flat if flat.size else _external(weights, external, 1, "<f4")
    elif weights.storage is Storage.FLOAT16:
        codes = source.array(0, "u1")
        flat = _viewed(codes if codes.size else _external(weights, external, 1, "u1"), "<f2").astype(np.float32)
    else:
        return _dequantized(weights, source, external)
    return flat.reshape(weights.channels, -1) if weights.channels > 0 and flat.size % weights.channels == 0 else flat


def _viewed(data: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[Any]:
    if data.size % np.dtype(dtype).itemsize:
        raise BadModel(f"{data.size} bytes hold no whole number of weights")
    return data.view(dtype)


def _external(weights: Weights, external: memoryview | None, part: int, dtype: str) -> npt.NDArray[Any]:
    if external is None:
        raise BadModel("the weights lie in a .mnn.weight file that is not there")
    if part >= len(weights.external):
        raise BadModel("it is not said where in the .mnn.weight file the weights lie")
    start = weights.external[0] + sum(weights.external[1:part])
    size = weights.external[part]
    if start < 0 or size < 0 or start + size > len(external):
        raise BadModel(f"the .mnn.weight file has {len(external)} bytes; {start + size} are needed")
    return _viewed(np.frombuffer(external, np.uint8, size, start), dtype)


def _dequantized(weights: Weights, table: Table, external: memoryview | None) -> Floats:
    if weights.storage is Storage.SPARSE_FLOAT:
        return _scattered(weights, table)
    buffer = table.array(0, "u1")
    buffer = buffer if buffer.size else _external(weights, external, 1, "u1")
    if weights.storage is not Storage.INTEGER:
        raise BadModel(f"weights stored as {weights.storage.value!r} are not decoded yet")
    shape, book, header = integer_header(buffer, bool(table.scalar(11, "u8")))
    count = math.prod(shape)
    if weights.channels <= 0 or count % weights.channels or header + math.ceil(weights.bits * count / 8) != buffer.size:
        raise BadModel("the weight buffer does not have the length that its header asks for")
    packed = unpack_codes(buffer[header:], weights.bits, count)
    if packed.max(initial=0) >= book.size:
        raise BadModel(f"a code points outside the code book of {book.size}")
    codes = book[packed].astype(np.float32)
    pairs = _scales(weights, table, external)
    if not len(pairs) or count % len(pairs):
        raise BadModel(f"{len(pairs)} scales do not divide {count} weights")
    blocks = codes.reshape(len(pairs), -1)
    with np.errstate(over="ignore", invalid="ignore"):  # Absurd scales give infinity, which the weights check tells.
        if weights.asymmetric:
            lowest = np.float32(table.scalar(8, "i32"))
            values = (blocks - lowest) * pairs[:, 1:] + pairs[:, :1]
        else:
            values = blocks * pairs
    return values.reshape(weights.channels, -1)


def _scattered(weights: Weights, table: Table) -> Floats:
    """The values that are not zero, put at their places."""
    places, values = table.array(13, "<u4"), table.array(1, "<f4")
    count = weights.count if 0 < weights.count <= _MOST_SPARSE else 0
    if len(places) != len(values) or (places >= count).any() or count % max(1, weights.channels) or not count:
        raise BadModel(f"{len(values)} values and {len(places)} places do not make {weights.count} sparse weights")
    dense = np.zeros(count, np.float32)
    dense[places] = values
    return dense.reshape(max(1, weights.channels), -1)


def _scales(weights: Weights, table: Table, external: memoryview | None) -> Floats:
    """[minimum, scale] (asymmetric) or [scale] of each group, as MNN stores them: in float32, float16 or externally."""
    alpha = table.array(1, "<f4")
    alpha = alpha if alpha.size else table.array(14, "<f2").astype(np.float32)
    alpha = alpha if alpha.size or not weights.external else _external(weights, external, 2, "<f4")
    columns = 2 if weights.asymmetric else 1
    if not alpha.size or alpha.size % columns:
        raise BadModel(f"{alpha.size} scale values where groups of {columns} are needed")
    return alpha.reshape(-1, columns)
