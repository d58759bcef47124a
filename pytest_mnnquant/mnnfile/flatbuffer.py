"""A bounds-checked reader of flatbuffer tables over a memory-mapped file.

Layout: https://flatbuffers.dev/internals. A table finds its field number `slot` through its vtable at byte
4 + 2 * slot. Every offset is checked before it is followed, so a damaged file gives `BadModel` and never a crash.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_SCALARS: Final = {
    "i8": struct.Struct("<b"),
    "u8": struct.Struct("<B"),
    "u16": struct.Struct("<H"),
    "i32": struct.Struct("<i"),
    "u32": struct.Struct("<I"),
    "f32": struct.Struct("<f"),
}


class BadModel(ValueError):
    """The file is not a complete MNN model: damaged, truncated or of another kind."""


def unpack(kind: str, buffer: memoryview, position: int) -> Any:
    """One little-endian scalar at `position`; raises `BadModel` outside the buffer."""
    scalar = _SCALARS[kind]
    if position < 0 or position + scalar.size > len(buffer):
        raise BadModel(f"offset {position} lies outside the file of {len(buffer)} bytes")
    return scalar.unpack_from(buffer, position)[0]


class Table:
    """One table of the file. Absent fields give their default."""

    __slots__ = ("_vtable", "_vtable_size", "buffer", "position")

    def __init__(self, buffer: memoryview, position: int) -> None:
        self.buffer = buffer
        self.position = position
        self._vtable = position - unpack("i32", buffer, position)
        self._vtable_size = unpack("u16", buffer, self._vtable)
        if self._vtable_size < 4 or self._vtable_size % 2 or self._vtable + self._vtable_size > len(buffer):
            raise BadModel(f"the table at offset {position} has no valid vtable")

    @classmethod
    def root(cls, buffer: memoryview) -> Table:
        """The root table; raises `BadModel` when the buffer holds none."""
        return cls(buffer, unpack("u32", buffer, 0))

    def field(self, slot: int) -> int:
        """Absolute position of a field's inline value, 0 when the field is absent."""
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_size:
            return 0
        offset = unpack("u16", self.buffer, self._vtable + entry)
        return self.position + int(offset) if offset else 0

    def scalar(self, slot: int, kind: str, default: float = 0) -> Any:
        """A number field; `kind` is one of i8, u8, u16, i32, u32, f32."""
        at = self.field(slot)
        return unpack(kind, self.buffer, at) if at else default

    def _follow(self, slot: int) -> int:
        at = self.field(slot)
        return at + int(unpack("u32", self.buffer, at)) if at else 0

    def has(self, slot: int) -> bool:
        """Whether the field is present in the file."""
        return self.field(slot) != 0

    def table(self, slot: int) -> Table | None:
        """A sub-table, None when absent."""
        at = self._follow(slot)
        return Table(self.buffer, at) if at else None

    def span(self, slot: int, item_size: int) -> tuple[int, int]:
        """(position of the first item, number of items) of a vector; (0, 0) when absent."""
        at = self._follow(slot)
        if not at:
            return 0, 0
        count = int(unpack("u32", self.buffer, at))
        if at + 4 + count * item_size > len(self.buffer):
            raise BadModel(f"a vector of {count} items at offset {at} runs past the end of the file")
        return at + 4, count

    def array(self, slot: int, dtype: str) -> npt.NDArray[Any]:
        """A vector of numbers as a read-only numpy view of the file, shape [n]; nothing is copied."""
        kind = np.dtype(dtype)
        at, count = self.span(slot, kind.itemsize)
        return np.frombuffer(self.buffer, kind, count, at) if count else np.empty(0, kind)

    def ints(self, slot: int) -> tuple[int, ...]:
        """A vector of int32."""
        return tuple(int(value) for value in self.array(slot, "<i4"))

    def string(self, slot: int) -> str:
        """A string field, decoded as UTF-8 with replacement; empty when absent."""
        at, count = self.span(slot, 1)
        return bytes(self.buffer[at : at + count]).decode("utf-8", "replace")

    def tables(self, slot: int) -> Iterator[Table]:
        """The tables of a vector of tables."""
        at, count = self.span(slot, 4)
        for item in range(at, at + 4 * count, 4):
            yield Table(self.buffer, item + int(unpack("u32", self.buffer, item)))

    def strings(self, slot: int) -> tuple[str, ...]:
        """A vector of strings."""
        at, count = self.span(slot, 4)
        texts = []
        for item in range(at, at + 4 * count, 4):
            start = item + int(unpack("u32", self.buffer, item))
            size = int(unpack("u32", self.buffer, start))
            if start + 4 + size > len(self.buffer):
                raise BadModel(f"the string at offset {start} runs past the end of the file")
            texts.append(bytes(self.buffer[start + 4 : start + 4 + size]).decode("utf-8", "replace"))
        return tuple(texts)
