"""Tables of a flatbuffer: what is absent has its default, what points outside is refused."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_mnnquant.mnnfile.flatbuffer import BadModel, Table, unpack

# vtable at 4 (size 16: slots 0 to 5, the last two absent), table at 20, then what its offsets point at.
_VTABLE = struct.pack("<8H", 16, 20, 4, 8, 12, 16, 0, 0)
_TABLE = struct.pack("<iiIII", 20 - 4, -7, 12, 16, 24)
_AFTER = struct.pack("<I", 3) + b"abc\0" + struct.pack("<Iii", 2, 5, -6) + struct.pack("<II", 1, 0xFFFFFFD4)


def buffer() -> bytes:
    """Slot 0 is the number -7, 1 the string abc, 2 the vector (5, -6), 3 a vector of one table: the root itself."""
    return struct.pack("<I", 20) + _VTABLE + _TABLE + _AFTER


def root(data: bytes) -> Table:
    return Table.root(memoryview(data))


def test_fields_are_read_at_the_places_the_vtable_gives() -> None:
    table = root(buffer())
    assert table.scalar(0, "i32") == -7
    assert table.string(1) == "abc"
    assert table.ints(2) == (5, -6)
    assert table.array(2, "<i4").tolist() == [5, -6]
    assert table.span(2, 4) == (52, 2)
    assert table.has(0)


@pytest.mark.parametrize("slot", [4, 5, 6, 100])
def test_absent_fields_have_defaults(slot: int) -> None:
    table = root(buffer())
    assert not table.has(slot)
    assert table.scalar(slot, "i32", 42) == 42
    assert table.string(slot) == ""
    assert table.ints(slot) == ()
    assert table.strings(slot) == ()
    assert list(table.tables(slot)) == []
    assert table.table(slot) is None


def test_a_table_offset_that_would_wrap_around_is_refused() -> None:
    """Offsets are unsigned: 0xFFFFFFD4 is not 44 bytes back."""
    with pytest.raises(BadModel):
        list(root(buffer()).tables(3))


@pytest.mark.parametrize("cut", range(1, len(buffer()) + 1))
def test_a_truncated_buffer_is_refused_wherever_it_is_cut(cut: int) -> None:
    data = buffer()[:-cut]

    def read_all() -> None:
        table = root(data)
        table.scalar(0, "i32")
        table.string(1)
        table.ints(2)
        table.span(3, 4)

    with pytest.raises(BadModel):
        read_all()


@given(st.binary(max_size=80))
@example(struct.pack("<I", 0))
@example(struct.pack("<Ii", 4, 4))
@example(struct.pack("<IiHH", 4, -4, 3, 0))
def test_any_bytes_are_a_table_or_bad(data: bytes) -> None:
    with contextlib.suppress(BadModel):
        table = root(data)
        for slot in range(8):
            table.scalar(slot, "f32")
            table.string(slot)
            table.strings(slot)
            table.array(slot, "<f4")
            list(table.tables(slot))
            table.table(slot)


@pytest.mark.parametrize("position", [-1, 5, 8, 2**40])
def test_numbers_outside_the_buffer_are_refused(position: int) -> None:
    with pytest.raises(BadModel, match="outside the file of 8 bytes"):
        unpack("i32", memoryview(bytes(8)), position)
