"""Reads .wav files: integers of 8 to 32 bits and floats, with any number of channels, as values of -1..1."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_INTEGERS, _FLOATS, _EXTENSIBLE = 1, 3, 0xFFFE
_ENCODINGS: Final = {2: "ADPCM", 6: "A-law", 7: "mu-law", 17: "IMA ADPCM", 85: "MP3"}
# A program that writes into a pipe does not know the size, and writes 0 or the largest number.
_UNKNOWN: Final = (0, 0xFFFFFFFF)


class UnreadableSound(ValueError):
    """The file is not a readable .wav file; the message is the reason, in one line, without the file's name."""


@dataclass(frozen=True)
class Sound:
    """A recording: `values` have shape [channels, length] in -1..1, `rate` is in Hz."""

    values: npt.NDArray[np.float32]
    rate: int


@dataclass(frozen=True)
class _Format:
    encoding: int
    channels: int
    rate: int
    bits: int


def read_sound(path: Path) -> Sound:
    """The recording in a .wav file. Raises `UnreadableSound`."""
    data = path.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise UnreadableSound("it does not begin as a .wav file does")
    form: _Format | None = None
    position = 12
    while position + 8 <= len(data):
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        body = data[position + 8 : position + 8 + size]
        if name == b"fmt ":
            form = _format(body)
        elif name == b"data":
            if size in _UNKNOWN and not (size == 0 and _is_chunk(data[position + 8 :])):
                body = data[position + 8 :]
            elif len(body) < size:
                raise UnreadableSound(f"it is truncated: {len(body)} of {size} bytes of samples")
            if form is None:
                raise UnreadableSound("its format is missing")
            return Sound(_values(body, form), form.rate)
        position += 8 + size + size % 2
    raise UnreadableSound("it has no samples")


def _is_chunk(data: bytes) -> bool:
    """Whether bytes begin with a complete chunk, such as the text that follows an empty recording."""
    name, size = data[:4], int.from_bytes(data[4:8], "little")
    return len(data) >= 8 and all(32 <= byte < 127 for byte in name) and 8 + size <= len(data)


def _format(body: bytes) -> _Format:
    if len(body) < 16:
        raise UnreadableSound("its format is truncated")
    encoding, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if encoding == _EXTENSIBLE and len(body) >= 26:
        encoding = int.from_bytes(body[24:26], "little")
    if encoding not in (_INTEGERS, _FLOATS):
        raise UnreadableSound(f"its samples are compressed ({_ENCODINGS.get(encoding, f'format {encoding}')})")
    if not channels or not rate or bits not in ((8, 16, 24, 32) if encoding == _INTEGERS else (32, 64)):
        raise UnreadableSound(f"{channels} channels of {bits} bits at {rate} Hz can't be read")
    return _Format(encoding, channels, rate, bits)


def _values(body: bytes, form: _Format) -> npt.NDArray[np.float32]:
    """The values, shape [channels, length]. A part of a frame at the end is left out."""
    frame = form.channels * form.bits // 8
    body = body[: len(body) // frame * frame]
    if not body:
        raise UnreadableSound("it has no samples")
    flat = _floats(body, form) if form.encoding == _FLOATS else _integers(body, form.bits)
    return np.ascontiguousarray(flat.reshape(-1, form.channels).T, np.float32)


def _floats(body: bytes, form: _Format) -> npt.NDArray[Any]:
    return np.frombuffer(body, f"<f{form.bits // 8}")


def _integers(body: bytes, bits: int) -> npt.NDArray[Any]:
    if bits == 8:  # The only width without a sign.
        return (np.frombuffer(body, np.uint8).astype(np.float64) - 128) / 128
    if bits == 24:
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4") / 2.0**31
    return np.frombuffer(body, f"<i{bits // 8}") / 2.0 ** (bits - 1)
