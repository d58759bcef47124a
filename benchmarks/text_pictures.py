"""Pages and lines of English text with their truth, for real networks that read text. Needs Pillow, for its font."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Random = np.random.Generator
_TEXT: Final = """
the of and to in is that for it as was with be by on not he his but at are this have from
or had an they which you were all her she there would their we him been has when who will no more if out
so up said what its about than into them can only other time new some could these two may first then do any like
my now over such our man
"""
WORDS: Final = _TEXT.split()
_PAGE: Final = 224
_SHORT_SIDE: Final = 256
_MEAN: Final = (0.485, 0.456, 0.406)
_DEVIATION: Final = (0.229, 0.224, 0.225)
_LINE: Final = 48


def pages(count: int, seed: int) -> tuple[Pixels, Labels]:
    """Pages [count, 3, 224, 224], normalized as ImageNet's, and the number of quarter turns clockwise."""
    random = np.random.default_rng(seed)
    turns = random.integers(0, 4, count)
    drawn = [_centre(_page(random).rotate(-90 * int(turn), expand=True)) for turn in turns]
    scaled = (np.stack(drawn) + random.normal(0, 0.01, (count, _PAGE, _PAGE, 3)) - _MEAN) / _DEVIATION
    return _channels_first(scaled), turns


def turned_lines(count: int, seed: int) -> tuple[Pixels, Labels]:
    """Lines [count, 3, 48, 192] in -1..1, and whether each is upside down."""
    random = np.random.default_rng(seed)
    turned = random.integers(0, 2, count)
    lines = np.stack([_line(random, _text(random, 3, 5), 192) for _ in range(count)])
    lines[turned == 1] = lines[turned == 1, ::-1, ::-1]
    return _channels_first(lines * 2 - 1), turned


def text_lines(count: int, seed: int, alphabet: Sequence[str]) -> tuple[Pixels, Labels]:
    """Lines [count, 3, 48, 320] in -1..1, and their characters: 1 + place in `alphabet`, padded with -1."""
    random = np.random.default_rng(seed)
    texts = [_text(random, 2, 4) for _ in range(count)]
    labels = np.full((count, max(map(len, texts))), -1)
    for row, text in zip(labels, texts, strict=True):
        row[: len(text)] = [1 + alphabet.index(letter) for letter in text]
    return _channels_first(np.stack([_line(random, text, 320) for text in texts]) * 2 - 1), labels


def _text(random: Random, least: int, most: int) -> str:
    words = [str(random.choice(WORDS)) for _ in range(random.integers(least, most))]
    return "".join(words).capitalize() + str(random.integers(10, 999))


def _channels_first(pictures: npt.NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)


def _page(random: Random) -> Image.Image:
    height = int(random.integers(300, 900))
    size = (int(height * random.uniform(0.7, 1.4)), height)
    grey = int(random.integers(200, 246))
    page = Image.new("RGB", size, _colour(random.integers(grey - 10, grey + 10, 3)))
    drawing, high = ImageDraw.Draw(page), int(random.integers(16, 36))
    font, left = ImageFont.load_default(high), int(random.integers(5, 40))
    colour, top = _colour(random.integers(0, 90, 3)), float(left)
    while top < height - high:
        words: list[str] = []
        while drawing.textlength(" ".join(words), font) < size[0] - 2 * left:
            words.append(str(random.choice(WORDS)) if random.random() > 0.1 else str(random.integers(10, 9999)))
        shown = words[: max(1, len(words) // 2)] if random.random() < 0.15 else words[:-1]
        drawing.text((left, int(top)), " ".join(shown), colour, font)
        top += high * random.uniform(1.2, 1.6)
    return page


def _colour(values: npt.NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _centre(page: Image.Image) -> npt.NDArray[np.float64]:
    """The middle of a page whose shorter side is 256, in 0..1."""
    scale = _SHORT_SIDE / min(page.size)
    small = page.resize((round(page.width * scale), round(page.height * scale)), Image.Resampling.LANCZOS)
    left, top = (small.width - _PAGE) // 2, (small.height - _PAGE) // 2
    return np.asarray(small.crop((left, top, left + _PAGE, top + _PAGE)), np.float64) / 255


def _line(random: Random, text: str, width: int) -> npt.NDArray[np.float64]:
    """Text in a line of 48 x `width`, in 0..1; the rest of the width is grey, as padding is after the normalization."""
    font = ImageFont.load_default(int(random.integers(26, 36)))
    long = round(ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(text, font)) + 12
    line = Image.new("RGB", (long, _LINE), _colour(random.integers(190, 256, 3)))
    place = (6 + int(random.integers(-3, 4)), int(random.integers(2, 8)))
    ImageDraw.Draw(line).text(place, text, _colour(random.integers(0, 90, 3)), font)
    line = line.resize((min(width, long), _LINE), Image.Resampling.BILINEAR)
    drawn = np.full((_LINE, width, 3), 0.5)
    drawn[:, : line.width] = np.clip(np.asarray(line) / 255 + random.normal(0, 0.02, (_LINE, line.width, 3)), 0, 1)
    return drawn
