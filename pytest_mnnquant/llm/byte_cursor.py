"""Reads numbers and strings one after the other from the bytes of a file, and never past their end."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.llm.json_object import BadExport

_U8: Final = struct.Struct("<B")
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")


class ByteCursor:
    """A place in the bytes of `file`. `section` names the part that is being read, in messages."""

    def __init__(self, file: str, data: bytes, position: int = 0) -> None:
        self.file, self.data, self.position, self.section = file, data, position, ""

    @property
    def rest(self) -> int:
        """Number of bytes that are left."""
        return len(self.data) - self.position

    def fault(self, problem: str) -> BadExport:
        """What to raise if the bytes can't be used."""
        return BadExport(self.file, self.section, problem)

    def take(self, size: int) -> bytes:
        """The next bytes. Raises `BadExport` if the file ends before."""
        if size < 0 or size > self.rest:
            raise self.fault(f"{size:,} bytes are needed at offset {self.position:,}, the file has {len(self.data):,}")
        self.position += size
        return self.data[self.position - size : self.position]

    def u8(self) -> int:
        """A byte."""
        return int(_U8.unpack(self.take(1))[0])

    def u16(self) -> int:
        """A number of 2 bytes."""
        return int(_U16.unpack(self.take(2))[0])

    def u32(self) -> int:
        """A number of 4 bytes."""
        return int(_U32.unpack(self.take(4))[0])

    def count(self, item_size: int) -> int:
        """A number of items of at least `item_size` bytes each that follow. Raises `BadExport` if they do not fit."""
        number = self.u32()
        if number * item_size > self.rest:
            raise self.fault(f"{number:,} items do not fit into the {self.rest:,} bytes that are left")
        return number

    def string(self) -> str:
        """A string after its length in 2 bytes."""
        return self._decoded(self.take(self.u16()))

    def long_string(self) -> str:
        """A string after its length in 4 bytes."""
        return self._decoded(self.take(self.count(1)))

    def u32_array(self, rows: int, columns: int) -> npt.NDArray[np.uint32]:
        """Numbers of 4 bytes, shape [rows, columns]."""
        return np.frombuffer(self.take(4 * rows * columns), "<u4").reshape(rows, columns)

    def _decoded(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fault(f"the text before offset {self.position:,} is not UTF-8") from None
