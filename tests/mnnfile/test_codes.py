"""Code buffers: headers, code books, packed codes, with and without their zeros."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.mnnfile.codes import (
    bits_of,
    bits_that_fill,
    dense_codes,
    integer_header,
    sparse_codes,
    sparse_header,
    unpack_codes,
)
from pytest_mnnquant.mnnfile.flatbuffer import BadModel

Bytes = npt.NDArray[np.uint8]


def naively_unpacked(packed: bytes, bits: int, count: int) -> list[int]:
    """The definition: one long binary number, most significant bit first, cut into codes."""
    text = "".join(f"{byte:08b}" for byte in packed)
    return [int(text[bits * number : bits * (number + 1)], 2) for number in range(count)]


@given(st.data(), st.integers(1, 8), st.integers(0, 70))
def test_codes_unpack_as_one_long_binary_number(data: st.DataObject, bits: int, count: int) -> None:
    needed = math.ceil(bits * count / 8)
    packed = data.draw(st.binary(min_size=needed, max_size=needed + 3))
    codes = unpack_codes(np.frombuffer(packed, np.uint8), bits, count)
    assert codes.tolist() == naively_unpacked(packed, bits, count)


def header(shape: tuple[int, ...], book: list[int], wide: bool) -> npt.NDArray[np.uint8]:
    kind = np.dtype("<u4" if wide else "<u2")
    data = bytes([len(shape)]) + np.array(shape, kind).tobytes() + bytes([len(book) % 256])
    return np.frombuffer(data + np.array(book, np.int8).tobytes(), np.uint8)


@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=4),
    st.integers(2, 8).map(lambda bits: list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))),
    st.booleans(),
    st.binary(max_size=5),
)
def test_header_gives_shape_and_code_book(shape: list[int], book: list[int], wide: bool, rest: bytes) -> None:
    written = header(tuple(shape), book, wide)
    found, codes, length = integer_header(np.concatenate([written, np.frombuffer(rest, np.uint8)]), wide)
    assert found == tuple(shape)
    assert codes.tolist() == book
    assert length == len(written)


@pytest.mark.parametrize("cut", range(1, 22))
def test_header_that_is_cut_off_is_refused(cut: int) -> None:
    written = header((3, 5), list(range(-8, 8)), wide=False)
    with pytest.raises(BadModel):
        integer_header(written[:-cut], wide=False)


@pytest.mark.parametrize("rank", [0, 5, 255])
def test_header_of_an_impossible_rank_is_refused(rank: int) -> None:
    written = header((3, 5), [0, 1], wide=False).copy()
    written[0] = rank
    with pytest.raises(BadModel, match=f"{rank} dimensions"):
        integer_header(written, wide=False)


def packed(codes: list[int], bits: int) -> bytes:
    """The inverse of unpacking: one long binary number, filled up with zeros."""
    text = "".join(f"{code:0{bits}b}" for code in codes)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


@st.composite
def matrices(draw: st.DrawFn) -> tuple[int, tuple[int, int], list[int]]:
    """(bits, shape, indexes into a full code book)"""
    bits, rows, columns = draw(st.integers(1, 8)), draw(st.integers(1, 4)), draw(st.integers(1, 9))
    codes = draw(st.lists(st.integers(0, 2**bits - 1), min_size=rows * columns, max_size=rows * columns))
    return bits, (rows, columns), codes


@given(matrices(), st.booleans(), st.randoms(use_true_random=False))
def test_dense_codes_survive_packing(
    matrix: tuple[int, tuple[int, int], list[int]], wide: bool, random: object
) -> None:
    """The book may be written in any order: MNN sorts it before it looks codes up."""
    bits, shape, indexes = matrix
    book = list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))
    written = list(book)
    random.shuffle(written)  # type: ignore[attr-defined]
    buffer = np.concatenate([header(shape, written, wide), np.frombuffer(packed(indexes, bits), np.uint8)])
    assert dense_codes(buffer, wide).tolist() == [book[index] for index in indexes]
    assert bits_of(np.array(book, np.int8)) == bits
    assert bits_that_fill(buffer.size, len(indexes), wide) in range(1, bits + 1)
    for other in (buffer[:-1], np.append(buffer, np.uint8(0))):
        with pytest.raises(BadModel):
            dense_codes(other, wide)


def test_a_code_outside_the_book_is_refused() -> None:
    buffer = np.concatenate([header((1, 2), [-1, 0, 1], False), np.frombuffer(packed([2, 3], 2), np.uint8)])
    with pytest.raises(BadModel, match="code book of 3"):
        dense_codes(buffer, False)
    assert dense_codes(np.append(buffer[:-1], np.uint8(0b10_01_0000)), False).tolist() == [1, 0]


def sparse(shape: tuple[int, int], places: list[int], values: list[int], step_bits: int, bits: int) -> Bytes:
    """A sparse buffer as MNN writes it; gaps too wide for a step hold a zero on the way."""
    book = list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))
    steps, codes, at = [], [], 0
    for place, value in zip(places, values, strict=True):
        while place - at >= 2**step_bits:
            at += 2**step_bits - 1
            steps.append(2**step_bits - 1)
            codes.append(book.index(0))
        steps.append(place - at)
        codes.append(book.index(value))
        at = place
    data = bytes([2]) + np.array(shape, "<u2").tobytes() + np.uint32(len(steps)).tobytes() + bytes([step_bits])
    data += packed(steps, step_bits) + bytes([len(book) % 256]) + np.array(book, np.int8).tobytes()
    return np.frombuffer(data + packed(codes, bits), np.uint8)


@given(st.data(), st.integers(1, 8), st.integers(2, 8))
def test_sparse_codes_stand_at_their_places(data: st.DataObject, step_bits: int, bits: int) -> None:
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 20))
    places = sorted(data.draw(st.sets(st.integers(0, rows * columns - 1), min_size=1)))
    values = [data.draw(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)) for _ in places]
    buffer = sparse((rows, columns), places, values, step_bits, bits)
    head = sparse_header(buffer, False)
    assert (head.groups, head.count, head.step_bits, head.bits) == (rows, rows * columns, step_bits, bits)
    expected = np.zeros(rows * columns, np.int8)
    expected[places] = values
    assert sparse_codes(buffer, head, np.zeros(rows, np.int8)).tolist() == expected.tolist()


def test_what_is_left_out_of_a_sparse_buffer_is_the_zero_of_its_group() -> None:
    buffer = sparse((2, 3), [1, 5], [7, -8], 3, 4)
    codes = sparse_codes(buffer, sparse_header(buffer, False), np.array([3, -2], np.int8))
    assert codes.tolist() == [3, 7, 3, -2, -2, -8]


@pytest.mark.parametrize("at", [5, 9])  # the number of entries, the bits of a step
def test_sparse_headers_that_make_no_sense_are_refused(at: int) -> None:
    buffer = sparse((2, 3), [1, 5], [7, -8], 3, 4).copy()
    buffer[at] = 200
    with pytest.raises(BadModel):
        sparse_header(buffer, False)
    with pytest.raises(BadModel):
        sparse_header(buffer[: at + 1], False)


@pytest.mark.parametrize("keep", [8, 10, 12, -1])
def test_a_sparse_buffer_that_is_cut_off_is_refused(keep: int) -> None:
    buffer = sparse((2, 30), [1, 20, 50], [7, -8, 1], 3, 4)
    with pytest.raises(BadModel):
        sparse_header(buffer[:keep], False)


def test_a_sparse_place_beyond_the_end_is_refused() -> None:
    buffer = sparse((1, 7), [3, 6], [1, 1], 3, 4)
    shorter = buffer.copy()
    shorter[3] = 5
    with pytest.raises(BadModel, match="6 of 5"):
        sparse_codes(shorter, sparse_header(shorter, False), np.zeros(1, np.int8))
