"""Statistics of pixels of 0..1 are found, with the numbers for 0..255; usual ones are not accused."""

from __future__ import annotations

import re

import pytest

from pytest_mnnquant.sources.pixel_statistics import wrong_statistics

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RIGHT = [123.68, 116.28, 103.53], [0.017125, 0.017507, 0.017429]


def numbers(text: str) -> list[list[float]]:
    """The lists of numbers in a text."""
    return [[float(value) for value in part.split(", ")] for part in re.findall(r"\[([^\]]+)\]", text)]


@pytest.mark.parametrize(
    ("mean", "normal"),
    [
        (MEAN, [1 / value for value in STD]),
        (MEAN, STD),
        (MEAN, RIGHT[1]),
        (RIGHT[0], STD),
        (RIGHT[0], [1 / value for value in STD]),
        (RIGHT[0], [255 * value for value in STD]),
        ([value * 255 for value in MEAN], [4.367, 4.464, 4.444]),
    ],
)
def test_the_right_numbers_are_given(mean: list[float], normal: list[float]) -> None:
    means, factors = numbers(wrong_statistics(mean, normal))
    assert means == pytest.approx(RIGHT[0], rel=1e-3)
    assert factors == pytest.approx(RIGHT[1], rel=1e-3)


@pytest.mark.parametrize(
    ("mean", "normal", "expected"),
    [
        ([0.5], [2.0], ([127.5], [2 / 255])),
        ([0.1307], [0.3081], ([33.3285], [1 / 0.3081 / 255])),
        ([0.5] * 3, [0.5] * 3, ([127.5] * 3, [2 / 255] * 3)),
        ([0.5] * 3, [1 / 255] * 3, ([127.5] * 3, [1 / 255] * 3)),
    ],
)
def test_other_data_sets_have_such_numbers_too(
    mean: list[float], normal: list[float], expected: tuple[list[float], list[float]]
) -> None:
    means, factors = numbers(wrong_statistics(mean, normal))
    assert means == pytest.approx(expected[0], rel=1e-3)
    assert factors == pytest.approx(expected[1], rel=1e-3)


@pytest.mark.parametrize(
    ("mean", "normal"),
    [
        ([103.94, 116.78, 123.68], [0.017] * 3),
        ([127.5] * 3, [0.00784] * 3),
        ([127.5], [1 / 127.5]),
        ([0.0] * 3, [1.0] * 3),
        ([0.0] * 3, [1 / 255] * 3),
        ([104.0, 117.0, 123.0], [1.0] * 3),
        ([0.0], [1 / 255]),
        ([128.0], [1 / 128]),
        ([0.0, 0.5, 0.0], [1.0] * 3),
        ([], []),
    ],
)
def test_usual_numbers_pass(mean: list[float], normal: list[float]) -> None:
    assert not wrong_statistics(mean, normal)
