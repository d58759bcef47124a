"""Texts that are read from the classes of steps, as CTC heads give them: a character is where a class begins.

Which step shows a character does not matter, so texts are compared instead of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.task import edits

Array = npt.NDArray[Any]
#: The blank fills at least this share of the steps; and it is the first or the last class.
_LEAST_BLANK: Final = 0.3
#: Characters are short, and mostly set apart by blanks; labels of frames are long, and tags of words touch.
_LONGEST, _MOST_TOUCH = 3.0, 0.2
#: Fewer characters, or different ones, are not a text.
_FEWEST, _FEWEST_KINDS = 50, 5


@dataclass(frozen=True)
class TextAgreement:
    """The edits between the texts of reference and output, and the characters of the reference; both [samples]."""

    edits: npt.NDArray[np.int64]
    characters: npt.NDArray[np.int64]

    def share(self, chosen: npt.NDArray[np.int64] | slice = slice(None)) -> float:
        """1 - edits / characters, at most 1."""
        return 1 - int(self.edits[chosen].sum()) / max(1, int(self.characters[chosen].sum()))


def compare_texts(reference: Array, output: Array) -> TextAgreement | None:
    """Compare classes of steps [samples, steps]; None if those of the reference are not a text with blanks."""
    if reference.ndim != 2 or not (blank := _blank(reference)):
        return None
    texts, others = (_read(classes, blank[0]) for classes in (reference, output))
    pairs = zip(texts, others, strict=True)
    return TextAgreement(
        np.array([edits(text, other) for text, other in pairs], np.int64), np.array([len(text) for text in texts])
    )


def _blank(classes: Array) -> tuple[int, ...]:
    """The class of the blank; empty if the classes are not a text."""
    values, counts = np.unique(classes, return_counts=True)
    blank = int(values[counts.argmax()])
    is_character, begins = classes != blank, np.ones(classes.shape, bool)
    begins[:, 1:] = classes[:, 1:] != classes[:, :-1]
    characters = int((is_character & begins).sum())
    if blank not in (values[0], values[-1]) or characters < _FEWEST or len(values) <= _FEWEST_KINDS:
        return ()
    touching = int((is_character & begins)[:, 1:][is_character[:, :-1]].sum())
    is_text = touching <= _MOST_TOUCH * characters and is_character.sum() <= _LONGEST * characters
    return (blank,) if is_text and (~is_character).mean() >= _LEAST_BLANK else ()


def _read(classes: Array, blank: int) -> list[list[int]]:
    begins = np.ones(classes.shape, bool)
    begins[:, 1:] = classes[:, 1:] != classes[:, :-1]
    return [row[chosen].tolist() for row, chosen in zip(classes, begins & (classes != blank), strict=True)]
