"""Bit packing and headers of stored weights."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.mnnfile.flatbuffer import BadModel
from pytest_mnnquant.mnnfile.storage import Storage, Weights, integer_header, unpack_codes


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


@pytest.mark.parametrize(
    ("weights", "label"),
    [
        (Weights(Storage.FLOAT32, 32, 6, 24), "float32"),
        (Weights(Storage.FLOAT16, 16, 6, 12), "float16"),
        (Weights(Storage.INTEGER, 8, 6, 6), "w8"),
        (Weights(Storage.INTEGER, 4, 64, 6, block=32), "w4 block 32"),
        (Weights(Storage.INTEGER, 8, 6, 6, full_int8=True), "int8"),
        (Weights(Storage.SPARSE_INTEGER, 4, 6, 6), "sparse integer"),
        (Weights(Storage.OTHER, 4, 6, 6), "other"),
    ],
)
def test_label_tells_the_storage(weights: Weights, label: str) -> None:
    assert weights.label == label


def test_float_storage_has_no_steps_and_weights_without_a_source_do_not_decode() -> None:
    weights = Weights(Storage.FLOAT32, 32, 6, 24)
    assert weights.steps().size == 0
    with pytest.raises(BadModel, match="no weights"):
        weights.decoded()
