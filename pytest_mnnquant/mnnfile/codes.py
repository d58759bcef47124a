"""The code buffers of low-bit weights: a header, a code book, packed codes; dense, or sparse without the zeros.

Formats as `IDSTEncoder` writes them and `ReadQuanData_c` and `ReadSparseQuanData_c` read them
(source/core/IDSTEncoder.hpp and ConvolutionCommon.cpp).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.flatbuffer import BadModel, unpack

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.int8]
# The file's size does not limit the number of sparse weights; no layer on a phone has more than this.
MOST_SPARSE = 1 << 28


def integer_header(buffer: Bytes, wide: bool) -> tuple[tuple[int, ...], Codes, int]:
    """Shape, code book and header length of an IDST buffer: u8 rank, dimensions, u8 entries (0: 256), the entries."""
    shape, at = _dimensions(buffer, wide)
    book, at = _book(buffer, at)
    return shape, book, at


def bits_of(book: Codes) -> int:
    """Bits of an index into a code book."""
    return max(1, (book.size - 1).bit_length())


def bits_that_fill(size: int, count: int, wide: bool) -> int:
    """Bits of `count` codes that fill a buffer of `size` bytes as MNN's converter writes it; 0 if no width fits."""
    rest = size - (10 if wide else 6)
    return next((bits for bits in range(1, 9) if (1 << bits) + _packed_size(bits, count) == rest), 0)


def dense_codes(buffer: Bytes, wide: bool) -> Codes:
    """All codes of a buffer, in file order. MNN sorts the code book before it looks codes up."""
    shape, book, header = integer_header(buffer, wide)
    count, bits = math.prod(shape), bits_of(book)
    if header + _packed_size(bits, count) != buffer.size:
        raise BadModel("the length of the weight buffer does not match its header")
    return _looked_up(unpack_codes(buffer[header:], bits, count), np.sort(book))


@dataclass(frozen=True, slots=True)
class SparseHeader:
    """The header of a sparse buffer: `count` weights in `groups` rows, of which `entries` have a code."""

    groups: int
    count: int
    entries: int
    step_bits: int
    bits: int
    book: Codes
    steps_at: int
    codes_at: int


def sparse_header(buffer: Bytes, wide: bool) -> SparseHeader:
    """Read dimensions, u32 entries, u8 bits per step, steps between positions, code book, codes."""
    view = memoryview(buffer.data)
    shape, at = _dimensions(buffer, wide)
    entries, step_bits = int(unpack("u32", view, at)), int(unpack("u8", view, at + 4))
    count, steps_at = math.prod(shape), at + 5
    if not 1 <= step_bits <= 8 or not 0 < count <= MOST_SPARSE or entries > count:
        raise BadModel(f"invalid sparse header: {entries} of {count} weights, steps of {step_bits} bits")
    book_at = steps_at + _packed_size(step_bits, entries)
    if book_at > buffer.size:
        raise BadModel("a weight buffer ends within the positions of its codes")
    book, at = _book(buffer, book_at)
    bits = bits_of(book)
    if at + _packed_size(bits, entries) != buffer.size:
        raise BadModel("the length of the weight buffer does not match its header")
    return SparseHeader(shape[0], count, entries, step_bits, bits, book, steps_at, at)


def sparse_codes(buffer: Bytes, head: SparseHeader, zeros: npt.NDArray[np.int8]) -> Codes:
    """All codes of a sparse buffer, in file order; `zeros` holds the code for zero of each group."""
    steps = unpack_codes(buffer[head.steps_at :], head.step_bits, head.entries)
    places = np.cumsum(steps, dtype=np.int64)
    if head.entries and places[-1] >= head.count:
        raise BadModel(f"a sparse weight has position {places[-1]} of {head.count}")
    codes = _looked_up(unpack_codes(buffer[head.codes_at :], head.bits, head.entries), np.unique(head.book))
    dense = np.repeat(zeros, head.count // len(zeros))
    dense[places] = codes
    return dense


def unpack_codes(packed: Bytes, bits: int, count: int) -> Bytes:
    """`count` codes of `bits` bits (1 to 8) each, packed with the most significant bit first."""
    packed = packed[: _packed_size(bits, count)]
    if bits == 8:
        return packed[:count]
    if bits == 4:
        pairs = np.empty((packed.size, 2), np.uint8)
        pairs[:, 0], pairs[:, 1] = packed >> 4, packed & 15
        return pairs.reshape(-1)[:count]
    flags = np.unpackbits(packed)[: bits * count].reshape(count, bits)
    packed_bytes: Bytes = np.packbits(flags, axis=1).reshape(count) >> np.uint8(8 - bits)
    return packed_bytes


def _packed_size(bits: int, count: int) -> int:
    return (bits * count + 7) // 8


def _dimensions(buffer: Bytes, wide: bool) -> tuple[tuple[int, ...], int]:
    view = memoryview(buffer.data)
    rank = int(unpack("u8", view, 0))
    if not 1 <= rank <= 4:
        raise BadModel(f"a weight buffer declares {rank} dimensions")
    kind, size = ("u32", 4) if wide else ("u16", 2)
    return tuple(int(unpack(kind, view, 1 + size * axis)) for axis in range(rank)), 1 + size * rank


def _book(buffer: Bytes, at: int) -> tuple[Codes, int]:
    entries = int(unpack("u8", memoryview(buffer.data), at)) or 256
    if at + 1 + entries > len(buffer):
        raise BadModel("a weight buffer ends within its code book")
    return buffer[at + 1 : at + 1 + entries].view(np.int8), at + 1 + entries


def _looked_up(indexes: Bytes, book: Codes) -> Codes:
    if indexes.max(initial=0) >= book.size:
        raise BadModel(f"a code lies outside of the code book of {book.size} entries")
    return book[indexes]
