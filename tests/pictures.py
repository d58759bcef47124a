"""Writes image files without any imaging library: PNG by zlib, JPEG by MNN in a process of its own."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
_KINDS = {1: 0, 3: 2, 4: 6}
_WRITE_JPEGS = """
import sys
from pathlib import Path
import MNN
import numpy as np
for file in Path(sys.argv[1]).glob("*.npy"):
    pixels = np.load(file)[..., ::-1].copy()
    held = MNN.expr.const(pixels, list(pixels.shape), MNN.expr.NHWC, MNN.expr.uint8)
    assert MNN.cv.imwrite(str(file.with_suffix(".jpg")), held)
    file.unlink()
"""


def png(pixels: npt.NDArray[Any]) -> bytes:
    """Pixels of shape [height, width, 1 (grey), 3 (RGB) or 4 (RGBA)] as a PNG file."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(np.uint8))
    header = struct.pack(">2I5B", width, height, 8, _KINDS[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def flat(width: int, height: int, *colour: int) -> bytes:
    """A PNG file of one colour."""
    return png(np.full((height, width, len(colour)), colour))


def write_jpegs(folder: Path, pictures: Mapping[str, Pixels]) -> None:
    """Write RGB pictures as `NAME.jpg`."""
    for name, pixels in pictures.items():
        np.save(folder / f"{name}.npy", pixels)
    subprocess.run([sys.executable, "-c", _WRITE_JPEGS, str(folder)], check=True, capture_output=True)


def scene(random: np.random.Generator, width: int, height: int) -> Pixels:
    """RGB pixels that change smoothly, within 20..235, so that every detail of resizing shows in the values."""
    steps = random.integers(-12, 13, (height, width, 3)).cumsum(0).cumsum(1)
    return (127.5 + 107 * np.sin(steps / 60)).astype(np.uint8)
