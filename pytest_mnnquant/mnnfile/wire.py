"""The part of the protobuf wire format that MNN's params file uses (https://protobuf.dev/programming-guides/encoding).

Written by hand because generated code requires one protobuf release: mnncompress requires protobuf < 4, onnx a newer
one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class BadParams(ValueError):
    """The params file can't be used: damaged, of another format, or with invalid values."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its number, wire type, value (int or bytes) and byte position in the file."""

    number: int
    wire_type: int
    value: int | bytes
    position: int


#: The error for a file that can't contain a message.
NO_PARAMS_FILE: Final = "this is not a params file"


def fields(data: bytes, offset: int = 0, *, otherwise: str = NO_PARAMS_FILE) -> Iterator[Field]:
    """The fields of one message in file order. Raises `BadParams` with the byte position of the error.

    `otherwise` describes the file if it does not contain a message.
    """
    at = 0
    while at < len(data):
        start = at
        key, at = _varint(data, at, offset)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise BadParams(f"byte {offset + start}: field number 0; {otherwise}")
        value: int | bytes
        if wire_type == VARINT:
            value, at = _varint(data, at, offset)
        elif wire_type in (FIXED32, FIXED64):
            size = 4 if wire_type == FIXED32 else 8
            value, at = data[at : at + size], at + size
        elif wire_type == BYTES:
            size, at = _varint(data, at, offset)
            value, at = data[at : at + size], at + size
        else:
            raise BadParams(f"byte {offset + start}: wire type {wire_type} does not exist")
        if at > len(data):
            raise BadParams(f"byte {offset + start}: field {number} runs past the end (truncated file?)")
        payload = at - len(value) if isinstance(value, bytes) else start
        yield Field(number, wire_type, value, offset + payload)


def _varint(data: bytes, at: int, offset: int) -> tuple[int, int]:
    value = shift = 0
    start = at
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            break
    raise BadParams(f"byte {offset + start}: an unterminated number (truncated file?)")


def signed(value: int) -> int:
    """An int32 or int64 field, which protobuf writes as 64-bit two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def put_int(number: int, value: int) -> bytes:
    """An int32 field."""
    return _put_varint(number << 3 | VARINT) + _put_varint(value & (1 << 64) - 1)


def put_bytes(number: int, value: bytes) -> bytes:
    """A string, bytes or message field."""
    return _put_varint(number << 3 | BYTES) + _put_varint(len(value)) + value


def put_float(number: int, value: float) -> bytes:
    """A float field."""
    return _put_varint(number << 3 | FIXED32) + struct.pack("<f", value)


def _put_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
