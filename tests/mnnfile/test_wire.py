"""The protobuf wire format, against its specification."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.mnnfile import wire
from pytest_mnnquant.mnnfile.wire import BadParams

NUMBERS = st.integers(1, 2**29 - 1)


def test_the_examples_of_the_specification() -> None:
    """https://protobuf.dev/programming-guides/encoding: field 1 = 150; field 2 = "testing"."""
    assert wire.put_int(1, 150) == b"\x08\x96\x01"
    assert wire.put_bytes(2, b"testing") == b"\x12\x07testing"
    assert wire.put_int(1, -2) == b"\x08\xfe" + b"\xff" * 8 + b"\x01"


@given(NUMBERS, st.integers(-(2**63), 2**63 - 1))
def test_integers_survive(number: int, value: int) -> None:
    (field,) = wire.fields(wire.put_int(number, value))
    assert (field.number, field.wire_type, field.position) == (number, wire.VARINT, 0)
    assert isinstance(field.value, int)
    assert wire.signed(field.value) == value


@given(NUMBERS, st.binary(max_size=300), st.integers(0, 1000))
def test_bytes_survive_and_know_their_place(number: int, value: bytes, offset: int) -> None:
    data = wire.put_bytes(number, value)
    (field,) = wire.fields(data, offset)
    assert (field.number, field.wire_type, field.value) == (number, wire.BYTES, value)
    assert data[field.position - offset :] == value


@given(NUMBERS, st.floats(width=32, allow_nan=False))
def test_floats_survive(number: int, value: float) -> None:
    (field,) = wire.fields(wire.put_float(number, value))
    assert isinstance(field.value, bytes)
    assert struct.unpack("<f", field.value) == (value,)


@given(st.lists(st.tuples(NUMBERS, st.binary(max_size=20)), max_size=8))
def test_fields_come_in_the_order_of_the_file(items: list[tuple[int, bytes]]) -> None:
    data = b"".join(wire.put_bytes(number, value) for number, value in items)
    assert [(field.number, field.value) for field in wire.fields(data)] == items


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x00\x01", "byte 100: field number 0"),
        (b"\x08\x96", "byte 101: "),
        (b"\x08" + b"\xff" * 11, "byte 101: "),
        (b"\x12\x07test", "byte 100: field 2 runs past the end"),
        (b"\x1d\x00\x00", "byte 100: field 3 runs past the end"),
        (b"\x08\x01\x0b", "byte 102: wire type 3 does not exist"),
        (b"\xff", "byte 100: "),
    ],
)
def test_what_is_wrong_is_named_with_its_byte(data: bytes, problem: str) -> None:
    with pytest.raises(BadParams, match=problem):
        list(wire.fields(data, 100))


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_bad(data: bytes) -> None:
    try:
        found = list(wire.fields(data))
    except BadParams:
        return
    assert all(field.number > 0 for field in found)
