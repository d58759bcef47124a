"""Texts of CTC are compared by their characters, not by steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.texts import compare_texts

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
TEXTS = RANDOM.integers(1, 9, (40, 6))


def steps(texts: Array, first: int = 1, length: int = 2) -> Array:
    """Each character fills `length` of 4 steps, from the step `first`; 0 is the blank."""
    classes = np.zeros((len(texts), 4 * texts.shape[1]), np.int64)
    for place in range(length):
        classes[:, first + place :: 4] = texts
    return classes


def test_a_character_may_be_shown_by_another_step() -> None:
    compared = compare_texts(steps(TEXTS), steps(TEXTS, first=2, length=1))
    assert compared is not None
    assert compared.share() == 1
    assert (steps(TEXTS) == steps(TEXTS, first=2, length=1)).mean() < 0.8


def test_wrong_and_missing_characters_are_counted() -> None:
    others = TEXTS.copy()
    others[0, 0], others[1, :2] = TEXTS[0, 0] % 8 + 1, 0
    compared = compare_texts(steps(TEXTS), steps(others))
    assert compared is not None
    assert compared.edits.tolist()[:3] == [1, 2, 0]
    assert compared.share() == pytest.approx(1 - 3 / 240)


@pytest.mark.parametrize(
    "classes",
    [
        steps(TEXTS, length=4 - 1),
        steps(TEXTS, 0, 4),
        steps(np.minimum(TEXTS, 3)),
        steps(TEXTS)[:5],
        np.where(steps(TEXTS) == 0, 4, steps(TEXTS)),
        steps(TEXTS)[:, :, None],
        np.repeat(steps(TEXTS), 4, 1),
    ],
    ids=["few blanks", "no blanks", "few kinds", "few characters", "blank among classes", "maps", "long"],
)
def test_other_classes_are_not_texts(classes: Array) -> None:
    assert compare_texts(classes, classes) is None
