"""Finds the weights in an operator's parameter tables, and their storage.

Written by MNN's converter (tools/converter/source/common/WeightQuantAndCoding.cpp, FullQuantAndCoding.cpp,
RemoveParams.cpp); field numbers: schema/default/CaffeOp.fbs and Tensor.fbs.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from pytest_mnnquant.mnnfile.codes import bits_of, bits_that_fill, integer_header, sparse_header
from pytest_mnnquant.mnnfile.flatbuffer import BadModel, Table
from pytest_mnnquant.mnnfile.storage import Kind, Storage, Weights, is_first_plain


def convolution_weights(table: Table) -> Weights | None:
    """The weights of a Convolution2D table (convolutions, deconvolutions, and Linear layers as convolutions)."""
    common, quantized, symmetric = table.table(0), table.table(3), table.table(4)
    channels = int(common.scalar(10, "i32")) if common else 0
    external = _external(table, 6)
    if symmetric is not None and symmetric.span(0, 1)[1]:
        return _before_code_books(symmetric, channels)
    if quantized is None:
        count = table.span(1, 4)[1] or _part(external, 1) // 4
        if not count:
            return None
        return Weights(Storage.FLOAT32, 32, count, 4 * count, channels, external=external, _source=table)
    weights = _quantized(quantized, channels, external, symmetric is not None, _expected_count(common) if common else 0)
    scales_of_products = symmetric is not None and min(symmetric.span(1, 4)[1], symmetric.span(2, 4)[1]) > 0
    return dataclasses.replace(weights, of_product=True) if scales_of_products else weights


def inner_product_weights(table: Table) -> Weights | None:
    """The weights of an InnerProduct table (Caffe and TFLite sources)."""
    channels, count = int(table.scalar(0, "i32")), table.span(3, 4)[1]
    quantized = table.table(7)
    if quantized is not None and not count:
        return _quantized(quantized, channels, (), False, int(table.scalar(2, "i32")))
    return Weights(Storage.FLOAT32, 32, count, 4 * count, channels, _source=(table, 3)) if count else None


def vector_weights(table: Table, slots: tuple[int, ...], external_slot: int | None) -> Weights | None:
    """Float vectors directly in an operator's parameters (MatMul, Scale, LayerNorm, PReLU, ...)."""
    external = () if external_slot is None else _external(table, external_slot)
    count = sum(table.span(slot, 4)[1] for slot in slots) or sum(external[1 : 1 + len(slots)]) // 4
    if not count:
        return None
    return Weights(Storage.FLOAT32, 32, count, 4 * count, external=external, _source=(table, *slots))


def blob_weights(blob: Table) -> Weights | None:
    """The numbers of a Blob (constants; the weights of RNN operators). None for integer blobs, which are indices."""
    data_type = int(blob.scalar(2, "i32", 1))
    external = _external(blob, 9)
    if data_type == 1:
        count = blob.span(7, 4)[1] or _part(external, 1) // 4
        return Weights(Storage.FLOAT32, 32, count, 4 * count, external=external, _source=(blob, 7)) if count else None
    if data_type == 19:
        size = blob.span(3, 1)[1] or _part(external, 1)
        return Weights(Storage.FLOAT16, 16, size // 2, size, external=external, _source=(blob, 3)) if size else None
    return None


def _external(table: Table, slot: int) -> tuple[int, ...]:
    return tuple(int(value) for value in table.array(slot, "<i8"))


def _part(external: tuple[int, ...], number: int) -> int:
    """Bytes of a run in the `.mnn.weight` file."""
    return external[number] if number < len(external) else 0


def _expected_count(common: Table) -> int:
    kernel = int(common.scalar(2, "i32", 1)) * int(common.scalar(3, "i32", 1))
    group = max(1, int(common.scalar(9, "i32", 1)))
    return int(common.scalar(10, "i32")) * max(1, int(common.scalar(11, "i32")) // group) * kernel


def _before_code_books(symmetric: Table, channels: int) -> Weights:
    """Full int8 of converters before 1.2: plain codes, and one scale for input, weight and output."""
    bits, count = int(symmetric.scalar(5, "i32", 8)), symmetric.span(0, 1)[1]
    size = count + 4 * symmetric.span(2, 4)[1]
    return Weights(Storage.INTEGER, bits, count, size, channels, full_int8=True, of_product=True, _source=symmetric)


def _quantized(
    table: Table, channels: int, external: tuple[int, ...], symmetric_quan: bool, expected: int = 0
) -> Weights:
    """The weights of an IDSTQuan table. `expected`, their number by the layer's shape, is needed for external codes."""
    kind, code_bytes = int(table.scalar(2, "i32")), table.span(0, 1)[1]
    scale_size = 2 if int(table.scalar(15, "i8")) == 1 else 4
    scales = table.span(14, 2)[1] if scale_size == 2 else table.span(1, 4)[1]
    scales = scales or _part(external, 2) // scale_size
    size = (
        (code_bytes or _part(external, 1))
        + scale_size * scales
        + (4 * table.span(13, 4)[1] or _part(external, 4))  # positions of sparse weights
    )
    bits = int(table.scalar(7, "i32"))
    scale_in, scale_out = float(table.scalar(5, "f32")), float(table.scalar(6, "f32"))
    common: dict[str, Any] = {"size": size, "channels": channels, "external": external, "_source": table}
    if kind == Kind.HALF:
        return Weights(Storage.FLOAT16, 16, (code_bytes or _part(external, 1)) // 2, **common)
    if kind == Kind.SPARSE_FLOAT:
        count = int(table.scalar(12, "u32"))
        return Weights(Storage.SPARSE_FLOAT, 32, expected, intact=count == expected, **common)
    if kind not in (Kind.DENSE, Kind.SPARSE, Kind.PLAIN):
        return Weights(Storage.OTHER, bits, code_bytes, **common)
    count, bits, intact = _codes(table, kind, _part(external, 1), expected, bits)
    asymmetric = int(table.scalar(9, "i32")) != 0 or is_first_plain(table)
    blocks = scales // (2 if asymmetric else 1) // channels if channels > 0 else 0
    return Weights(
        Storage.SPARSE_INTEGER if kind == Kind.SPARSE else Storage.INTEGER,
        bits,
        count,
        asymmetric=asymmetric,
        block=count // channels // blocks if blocks > 1 else None,
        full_int8=symmetric_quan and scale_in != 0,
        scale_in=scale_in,
        scale_out=scale_out,
        intact=intact,
        half_scales=scale_size == 2,
        **common,
    )


def _codes(table: Table, kind: int, external_size: int, expected: int, bits: int) -> tuple[int, int, bool]:
    """(number of weights, bits per weight, whether the buffer's length is right). Ignores a broken header."""
    buffer, wide = table.array(0, "u1"), bool(table.scalar(11, "u8"))
    if kind == Kind.PLAIN:
        size = buffer.size or external_size
        return size, 8, size == expected
    if not buffer.size:
        filling = bits_that_fill(external_size, expected, wide) if kind == Kind.DENSE else bits
        return expected, filling or bits, external_size > 0 and filling > 0
    try:
        if kind == Kind.SPARSE:
            sparse = sparse_header(buffer, wide)
            return expected, sparse.bits, sparse.count == expected
        shape, book, header = integer_header(buffer, wide)
    except BadModel:  # MNN's converter may leave raw floats here: only the layer is broken, not the file.
        return expected, bits, False
    count = math.prod(shape)
    if header + (bits_of(book) * count + 7) // 8 != buffer.size:
        return expected, bits, False
    return count, bits_of(book), count > 0 or expected == 0
