"""Words in print, and what a text recogniser reads in them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tests.zoo.test_real_networks import READERS, file_of

WORDS = (
    *("quantize", "network", "gradient", "Mobile", "kernel", "20260131", "matrix", "Tensor", "signal", "window"),
    *("bridge", "Harbour", "morning", "yellow", "castle", "orange", "3.14159", "picture", "journey", "Platform"),
    *("silver", "EXPORT", "thunder", "village"),
)
#: Words to calibrate on: none of those that are read.
OTHER_WORDS = (
    *("layer", "weights", "model", "Channel", "tablet", "1984", "language", "River", "garden", "phone"),
    *("Winter", "coffee", "island", "27.50", "mirror", "GUITAR", "purple", "station", "hammer", "Forest"),
    *("letter", "doctor", "sunday", "engine"),
)
# The recogniser takes lines 48 pixels high; the longest of these words is 188 wide.
_HEIGHT, _WIDTH = 48, 192
_PRINTED, _MARGIN = 64, 4


def recogniser() -> Path:
    """The ONNX model; skips the test where rapidocr-onnxruntime is not installed."""
    return file_of("rapidocr_onnxruntime", "models", READERS["rec"])


@cache
def alphabet() -> tuple[str, ...]:
    """The characters of the recogniser's classes: the blank, those its file lists, and the space."""
    listed = {item.key: item.value for item in onnx.load(recogniser()).metadata_props}
    return ("", *listed["character"].split("\n"), " ")


def lines(words: Sequence[str]) -> npt.NDArray[np.float32]:
    """Printed words as PaddleOCR feeds them, shape [samples, 3, 48, 192]: -1..1, and 0 to the right of the word."""
    drawing = [pytest.importorskip(f"PIL.{name}") for name in ("Image", "ImageDraw", "ImageFont")]
    grey = np.zeros((len(words), _HEIGHT, _WIDTH), np.float32)
    for number, word in enumerate(words):
        printed = _printed(word, *drawing)
        grey[number, :, : printed.shape[1]] = printed / 127.5 - 1
    return np.ascontiguousarray(grey[:, None].repeat(3, 1))


def _printed(word: str, image: Any, draw: Any, fonts: Any) -> npt.NDArray[np.float32]:
    font = fonts.load_default(size=_PRINTED)  # Pillow's own, the same everywhere.
    left, _, right, _ = font.getbbox(word)
    line = image.new("L", (int(right - left) + 2 * _MARGIN, sum(font.getmetrics())), 255)
    draw.Draw(line).text((_MARGIN - left, 0), word, font=font, fill=0)
    width = min(_WIDTH, round(line.width * _HEIGHT / line.height))
    return np.asarray(line.resize((width, _HEIGHT), image.Resampling.BILINEAR), np.float32)


def labels(words: Sequence[str]) -> npt.NDArray[np.int64]:
    """The classes of their characters, shape [samples, longest], padded with -1."""
    classes = {character: number for number, character in enumerate(alphabet())}
    found = np.full((len(words), max(map(len, words))), -1, np.int64)
    for row, word in zip(found, words, strict=True):
        row[: len(word)] = [classes[character] for character in word]
    return found


def read(output: npt.NDArray[np.float32]) -> list[str]:
    """What outputs of shape [samples, steps, classes] spell: each step's best class, runs of one class once."""
    characters = alphabet()
    return ["".join(characters[one] for one, _ in itertools.groupby(row)) for row in output.argmax(2).tolist()]


def share_right(output: npt.NDArray[np.float32], words: Sequence[str] = WORDS) -> float:
    """The share of words read without a mistake."""
    return float(np.mean([one == other for one, other in zip(read(output), words, strict=True)]))
