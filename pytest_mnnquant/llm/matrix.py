"""One stored matrix of an export: its form, its place in a file, and its weights, decoded some rows at a time.

The runtime reads layers (ConvolutionCommon.cpp) and embeddings (diskembedding.cpp) in one form: value = code * scale
(symmetric) or (code - lowest) * scale + minimum. Codes are packed with the most significant bit first, rows follow each
other. A layer has a header before its codes (`mnnfile.codes`), an embedding has none.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.llm.extents import NOWHERE, Extent
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.mnnfile.codes import Bytes, unpack_codes
from pytest_mnnquant.mnnfile.storage import Floats

#: Weights that are decoded at a time. Chunks of 8 rows begin at a whole byte in every number of bits.
_CHUNK: Final = 1 << 21


class Form(str, enum.Enum):
    """How the numbers of a matrix are stored."""

    INTEGER = "integer"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    OTHER = "other"


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix of `rows` (output features, or tokens) by `columns` (input features).

    `block` is the number of weights that share a scale, `columns` if a row has one scale, 0 for floats. `file` holds
    the runs of bytes `codes`, `scales` and `bias`; `codes` includes a header of `header` bytes. `claimed_groups` is the
    number of groups that the graph claims for asymmetric weights (0: symmetric). `fault` says which facts of the file
    contradict each other.
    """

    name: str
    file: str
    form: Form
    rows: int
    columns: int
    bits: int
    codes: Extent
    scales: Extent = NOWHERE
    bias: Extent = NOWHERE
    block: int = 0
    symmetric: bool = False
    scale_bits: int = 0
    header: int = 0
    lowest: int = 0
    claimed_groups: int = 0
    fault: str = ""

    @property
    def is_quantized(self) -> bool:
        """Whether it is stored as codes and scales."""
        return self.form is Form.INTEGER

    @property
    def count(self) -> int:
        """Number of weights."""
        return self.rows * self.columns

    @property
    def blocks(self) -> int:
        """Scales per row."""
        return self.columns // self.block if self.block else 0

    @property
    def bytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.length + self.scales.length

    @property
    def label(self) -> str:
        """A short name of the form: `w4 block 64`, `w8`, `float16`."""
        if not self.is_quantized:
            return self.form.value
        return f"w{self.bits}" + (f" block {self.block}" if self.block != self.columns else "")


@dataclass(frozen=True)
class Groups:
    """Scales and minima of some rows, shape [rows, blocks]; the minima of symmetric weights are 0."""

    scales: Floats
    minima: Floats


def row_chunks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows of at most about 2 million weights, each starting at a multiple of 8."""
    step = max(8, _CHUNK // max(1, columns) // 8 * 8)
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def read_codes(matrix: StoredMatrix, data: memoryview, start: int, stop: int) -> Bytes:
    """The codes of rows from `start` (a multiple of 8) to `stop`, 0 to 2^bits - 1, shape [rows, columns]."""
    bits = matrix.bits
    first = matrix.header + start * matrix.columns * bits // 8
    count = (stop - start) * matrix.columns
    packed = _bytes(matrix, data, matrix.codes, first, (count * bits + 7) // 8)
    return unpack_codes(packed, bits, count).reshape(stop - start, matrix.columns)


def read_groups(matrix: StoredMatrix, data: memoryview, start: int, stop: int) -> Groups:
    """Scales and minima of rows from `start` to `stop`, as the runtime reads them."""
    columns = 1 if matrix.symmetric else 2
    size = matrix.scale_bits // 8
    row = matrix.blocks * columns * size
    stored = _bytes(matrix, data, matrix.scales, start * row, (stop - start) * row)
    values = stored.view("<f2" if size == 2 else "<f4").astype(np.float32)
    pairs = values.reshape(stop - start, matrix.blocks, columns)
    minima = np.zeros_like(pairs[..., 0]) if matrix.symmetric else pairs[..., 0]
    return Groups(pairs[..., -1], minima)


def decode_rows(matrix: StoredMatrix, data: memoryview, start: int, stop: int) -> Floats:
    """The weights of rows from `start` (a multiple of 8) to `stop`, shape [rows, columns].

    `data` is the mapped file that holds them. Raises `BadExport` if bytes are missing or contradict each other.
    """
    if matrix.fault:
        raise BadExport(matrix.file, matrix.name, matrix.fault)
    if not matrix.is_quantized:
        return _decode_floats(matrix, data, start, stop)
    codes = read_codes(matrix, data, start, stop).reshape(stop - start, matrix.blocks, matrix.block)
    groups = read_groups(matrix, data, start, stop)
    zero = np.float32(1 << (matrix.bits - 1))
    values = codes.astype(np.float32) - zero
    with np.errstate(over="ignore", invalid="ignore"):
        if not matrix.symmetric:
            values = (values - np.float32(matrix.lowest)) * groups.scales[..., None] + groups.minima[..., None]
        else:
            values = values * groups.scales[..., None]
    return values.reshape(stop - start, matrix.columns)


def read_bias(matrix: StoredMatrix, data: memoryview) -> Floats:
    """The bias, shape [rows]; empty if it has none."""
    values: Floats = _bytes(matrix, data, matrix.bias, 0, matrix.bias.length // 4 * 4).view("<f4")
    return values


def widen_bfloat16(halves: npt.NDArray[np.uint16]) -> Floats:
    """16-bit brain floats as float32, same shape."""
    values: Floats = (halves.astype(np.uint32) << 16).view(np.float32)
    return values


def _decode_floats(matrix: StoredMatrix, data: memoryview, start: int, stop: int) -> Floats:
    if matrix.form is Form.OTHER:
        raise BadExport(matrix.file, matrix.name, "weights in this form can't be decoded")
    size = matrix.bits // 8
    first, length = start * matrix.columns * size, (stop - start) * matrix.columns * size
    stored = _bytes(matrix, data, matrix.codes, matrix.header + first, length)
    values: Floats
    if matrix.form is Form.BFLOAT16:
        values = widen_bfloat16(stored.view("<u2"))
    else:
        values = stored.view("<f2" if size == 2 else "<f4").astype(np.float32)
    return values.reshape(stop - start, matrix.columns)


def _bytes(matrix: StoredMatrix, data: memoryview, run: Extent, first: int, length: int) -> Bytes:
    start = run.offset + first
    if run.offset < 0 or first + length > run.length or start + length > len(data):
        raise BadExport(
            matrix.file, matrix.name, f"bytes {start:,} to {start + length:,} are needed, the file has {len(data):,}"
        )
    return np.frombuffer(data, np.uint8, length, start)
