"""Gives operators of a model file a separate input tensor: an exact copy of the tensor that they read.

The copy can have another quantization than the tensor, which other operators read too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table, unpack
from pytest_mnnquant.mnnfile.schema import OP_NAMES, PARAMETER_NAMES

# Slots of a Net and of an Op, and those of them that hold offsets to other data.
_OPERATORS, _TENSOR_NAMES, _TENSOR_NUMBER = 3, 7, 8
_NET_OFFSETS: Final = (0, 1, 2, 3, 4, 7, 10, 11)
_INPUTS, _NAME = 0, 3
_OP_OFFSETS: Final = (0, 2, 3, 4, 7)
_ALIGNMENT: Final = 16
_CONVERT_TENSOR: Final = next(number for number, name in OP_NAMES.items() if name == "ConvertTensor")
_CONVERT_INFO: Final = next(number for number, name in PARAMETER_NAMES.items() if name == "TensorConvertInfo")
_NC4HW4: Final = 2


def with_separate_inputs(data: bytes, copies: Mapping[str, str]) -> bytes:
    """A model file's bytes, in which operators of the main graph read a copy of their first input.

    `copies`: the name of the copy, by the name of the operator. The copies are the last tensors, in the order of the
    operators. A copy has the layout NC4HW4, which the operator must read, and MNN makes it with a Raster. Raises
    `BadModel`.
    """
    net = Table.root(memoryview(data))
    operators = list(net.tables(_OPERATORS))
    changed = [table for table in operators if table.string(_NAME) in copies]
    names = _items(net, _TENSOR_NAMES)
    front = _Front(data)
    root = front.copy_table(0, net, _NET_OFFSETS)
    entries = iter(front.add_vector(root[_OPERATORS], len(operators) + len(changed)))
    name_entries = front.add_vector(root[_TENSOR_NAMES], len(names) + len(changed))
    if _TENSOR_NUMBER in root:
        front.write("<i", root[_TENSOR_NUMBER], len(name_entries))
    for entry, name in zip(name_entries, names, strict=False):
        front.refer_to_old(entry, name)
    copied = iter(range(len(names), len(name_entries)))
    for operator in operators:
        title, entry = operator.string(_NAME), next(entries)
        if title not in copies:
            front.refer_to_old(entry, operator.position)
            continue
        tensor, (original, *others) = next(copied), operator.ints(_INPUTS)
        front.add_string(name_entries[tensor], copies[title])
        front.add_copying(entry, original, tensor, copies[title])
        fields = front.copy_table(next(entries), operator, _OP_OFFSETS)
        front.add_ints(fields[_INPUTS], (tensor, *others))
    return front.joined()


def _items(table: Table, slot: int) -> list[int]:
    """The positions that a vector of offsets refers to."""
    start, count = table.span(slot, 4)
    return [at + int(unpack("u32", table.buffer, at)) for at in range(start, start + 4 * count, 4)]


class _Front:
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

    def add_string(self, entry: int, text: str) -> None:
        """Add a string."""
        encoded = text.encode()
        self._refer(entry, struct.pack("<I", len(encoded)) + encoded + b"\0")

    def add_copying(self, entry: int, original: int, copied: int, name: str) -> None:
        """Add an operator that copies a tensor to another."""
        # Op: inputs 0, kind of the parameters 1, parameters 2, name 3, outputs 4, kind 5.
        vtable = self._append(struct.pack("<8H", 16, 28, 4, 24, 8, 12, 16, 20), 2)
        numbers = struct.pack("<iIIIIiB3x", 0, 0, 0, 0, 0, _CONVERT_TENSOR, _CONVERT_INFO)
        operator = self._refer(entry, numbers)
        self.write("<i", operator, operator - vtable)
        self.add_ints(operator + 4, (original,))
        self.add_string(operator + 12, name)
        self.add_ints(operator + 16, (copied,))
        # TensorConvertInfo: source 0, destination 1.
        vtable = self._append(struct.pack("<4H", 8, 8, 4, 5), 2)
        layouts = self._refer(operator + 8, struct.pack("<iBBxx", 0, _NC4HW4, _NC4HW4))
        self.write("<i", layouts, layouts - vtable)

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
