"""New tables in front of a flatbuffer's bytes, for copies of model files with more operators and tensors."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table, unpack
from pytest_mnnquant.mnnfile.schema import OP_NAMES, PARAMETER_NAMES

_ALIGNMENT: Final = 16
_KINDS: Final = {name: number for number, name in OP_NAMES.items()}
_PARAMETERS: Final = {name: number for number, name in PARAMETER_NAMES.items()}
# Slots of a Net and of an Op, and those of them that hold offsets to other data.
OPERATORS: Final = 3
TENSOR_NAMES: Final = 7
TENSOR_NUMBER: Final = 8
NET_OFFSETS: Final = (0, 1, 2, 3, 4, 7, 10, 11)
INPUTS: Final = 0
NAME: Final = 3
OUTPUTS: Final = 4
OP_OFFSETS: Final = (0, 2, 3, 4, 7)


def referred_positions(table: Table, slot: int) -> list[int]:
    """The positions that a vector of offsets refers to."""
    start, count = table.span(slot, 4)
    return [at + int(unpack("u32", table.buffer, at)) for at in range(start, start + 4 * count, 4)]


class Front:
    """New tables in front of a file's bytes: offsets of a flatbuffer only point forward."""

    def __init__(self, data: bytes) -> None:
        self._data, self._bytes = data, bytearray(4)
        self._to_old: dict[int, int] = {}

    def write(self, form: str, position: int, *values: int) -> None:
        """Overwrite numbers."""
        struct.pack_into(form, self._bytes, position, *values)
        self._to_old.pop(position, None)

    def refer_to_old(self, entry: int, position: int) -> None:
        """Let the offset at `entry` point to a position of the old bytes."""
        self._to_old[entry] = position

    def copy_table(self, entry: int, table: Table, offsets: Sequence[int]) -> dict[int, int]:
        """Copy a table, to which the offset at `entry` points; returns the positions of its fields, by slot.

        `offsets`: the slots that hold offsets; they point to the old data until they are written again.
        """
        vtable = table.position - int(unpack("i32", table.buffer, table.position))
        size, extent = (int(unpack("u16", table.buffer, vtable + at)) for at in (0, 2))
        copied = self._append(bytes(table.buffer[vtable : vtable + size]), 2)
        start = self._append(bytes(table.buffer[table.position : table.position + extent]), 8, table.position)
        self.write("<i", start, start - copied)
        self.write("<I", entry, start - entry)
        slots = {slot: table.field(slot) for slot in range((size - 4) // 2) if table.has(slot)}
        for slot in set(offsets) & slots.keys():
            at = slots[slot]
            self.refer_to_old(start + at - table.position, at + int(unpack("u32", table.buffer, at)))
        return {slot: start + at - table.position for slot, at in slots.items()}

    def add_vector(self, entry: int, count: int) -> list[int]:
        """Add a vector of offsets; returns the positions of its items."""
        start = self._refer(entry, struct.pack("<I", count) + bytes(4 * count))
        return [start + 4 + 4 * place for place in range(count)]

    def add_ints(self, entry: int, numbers: Sequence[int]) -> None:
        """Add a vector of int32."""
        self._refer(entry, struct.pack(f"<I{len(numbers)}i", len(numbers), *numbers))

    def add_operator(
        self, entry: int, kind: tuple[str, str], reads: Sequence[int], makes: tuple[int, int], name: str
    ) -> int:
        """Add an operator of a kind, and of a kind of parameters; returns the position of the parameters' offset.

        `makes` are the tensor that it makes and the entry of the tensor's name, which becomes that of the operator.
        """
        # Op: inputs 0, kind of the parameters 1, parameters 2, name 3, outputs 4, kind 5.
        vtable = self._append(struct.pack("<8H", 16, 28, 4, 24, 8, 12, 16, 20), 2)
        numbers = struct.pack("<iIIIIiB3x", 0, 0, 0, 0, 0, _KINDS[kind[0]], _PARAMETERS[kind[1]])
        operator = self._refer(entry, numbers)
        self.write("<i", operator, operator - vtable)
        self.add_ints(operator + 4, reads)
        self.add_ints(operator + 16, makes[:1])
        text = self._refer(operator + 12, _string(name))
        self.write("<I", makes[1], text - makes[1])
        return operator + 8

    def add_table(self, entry: int, slots: Sequence[int], data: bytes) -> int:
        """Add a table of these bytes, of which the first 4 refer to its slots; returns its position.

        `slots`: the place of each slot in `data`, 0 for those that are missing.
        """
        size = 4 + 2 * len(slots)
        vtable = self._append(struct.pack(f"<{2 + len(slots)}H", size, len(data), *slots), 2)
        table = self._refer(entry, data)
        self.write("<i", table, table - vtable)
        return table

    def add_floats(self, entry: int, numbers: Sequence[float]) -> None:
        """Add a vector of float32."""
        self._refer(entry, struct.pack(f"<I{len(numbers)}f", len(numbers), *numbers))

    def joined(self) -> bytes:
        """All bytes."""
        self._append(b"", _ALIGNMENT)
        for entry, position in self._to_old.items():
            struct.pack_into("<I", self._bytes, entry, len(self._bytes) + position - entry)
        return bytes(self._bytes) + self._data

    def _append(self, data: bytes, alignment: int, like: int = 0) -> int:
        """Append bytes at a position that is as well aligned as `like`; returns the position."""
        self._bytes += bytes((like - len(self._bytes)) % alignment)
        start = len(self._bytes)
        self._bytes += data
        return start

    def _refer(self, entry: int, data: bytes) -> int:
        """Append bytes to which the offset at `entry` points; returns their position."""
        start = self._append(data, 4)
        self.write("<I", entry, start - entry)
        return start


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<I", len(encoded)) + encoded + b"\0"
