"""Pixels as PNG files (ISO/IEC 15948), with the standard library only."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _INDEXED = 0, 2, 3


def png(pixels: npt.NDArray[Any], palette: npt.NDArray[Any] | None = None) -> str:
    """Base64 of a PNG file: `pixels` is uint8 [height, width] (grey, or numbers of `palette` [n, 3]) or [h, w, 3]."""
    kind = _RGB if pixels.ndim == 3 else _GREY if palette is None else _INDEXED
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels, np.uint8).reshape(height, -1)
    data = np.concatenate([np.zeros((height, 1), np.uint8), rows], 1).tobytes()  # Each row without a filter.
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if palette is not None:
        chunks.append(_chunk(b"PLTE", np.ascontiguousarray(palette, np.uint8).tobytes()))
    chunks += [_chunk(b"IDAT", zlib.compress(data, 9)), _chunk(b"IEND", b"")]
    return base64.b64encode(_SIGNATURE + b"".join(chunks)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
