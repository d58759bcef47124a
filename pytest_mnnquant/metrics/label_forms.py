"""Labels in the forms that people save them in: class numbers as floats, in a column, or as one-hot rows."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Classes = npt.NDArray[np.int64]
_NUMBERS: Final = "biuf"
_TEXT: Final = "USO"
#: Labels of this value mark places without a class, by convention. Masks of pictures use it for the foreground.
IGNORED: Final = 255
#: Whole numbers up to 255 of which one is above this are grey levels, if the output stays in 0..1 up to this excess.
_GREY, _EXCESS = 100, 0.1


def is_text(labels: Array) -> bool:
    """Whether labels are strings or other objects, which no metric of this package reads."""
    return labels.dtype.kind in _TEXT


def whole_numbers(labels: Array) -> Classes | None:
    """Labels as integers: integers, truth values, or floats that are all integers; None for others."""
    if labels.dtype.kind not in _NUMBERS:
        return None
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        return None
    return labels.astype(np.int64)


def class_numbers(labels: Array, classes: int) -> Classes | None:
    """One class number per sample, shape [samples]; None for other labels.

    One-hot rows count as class numbers if they have as many columns as the output has `classes`.
    """
    numbers = whole_numbers(labels)
    if numbers is None or numbers.size == len(numbers):
        return None if numbers is None else numbers.reshape(-1)
    rows = numbers.reshape(len(numbers), -1)
    is_one_hot = rows.shape[1] == classes and np.isin(rows, (0, 1)).all() and (rows.sum(1) == 1).all()
    return rows.argmax(1) if is_one_hot else None


def class_map(labels: Array, output: Array) -> Classes | None:
    """The class of each place, of the shape of `output` without its axis of classes; None for other labels.

    An axis of 1 in place of the axis of classes, and one-hot maps of the output's shape, count as maps. An output of
    integers holds the classes themselves.
    """
    numbers = whole_numbers(labels)
    if numbers is None or output.ndim < 2:
        return None
    if output.dtype.kind in "iu":
        return numbers if numbers.shape == output.shape and numbers.ndim > 1 else None
    places = (len(output), *output.shape[2:])
    if numbers.shape == places and numbers.ndim > 1:
        return numbers
    if numbers.shape == (len(output), 1, *output.shape[2:]) and numbers.ndim > 2:
        return numbers[:, 0]
    is_one_hot = numbers.shape == output.shape and np.isin(numbers, (0, 1)).all() and (numbers.sum(1) == 1).all()
    return numbers.argmax(1) if is_one_hot and numbers.ndim > 2 else None


def are_counted_from_one(labels: Array, classes: int) -> bool:
    """Whether labels seem to be counted from 1: the largest is the number of classes, and 0 never occurs."""
    numbers = whole_numbers(labels)
    return numbers is not None and numbers.size > 0 and int(numbers.max()) == classes and int(numbers.min()) == 1


def problem_of_map(values: Set[int], classes: float) -> tuple[str, str]:
    """Why a map of class numbers can't be compared with an output, and the fix; both empty if it can.

    `values` occur in the map. `classes` is the number of classes of the output; infinite if it holds them itself.
    """
    given = {value for value in values if value >= 0 and value != IGNORED}
    if IGNORED in values and given == {0}:
        return "the labels are 0 and 255 only, and 255 marks places without a class", "labels = labels // 255"
    if not any(value < classes for value in given):
        return "no label is a class of the output", "give class numbers from 0 as `labels`"
    if min(given) == 1 and max(given) == classes:
        reason = f"the labels are 1 to {classes} and never 0; the output has the classes 0 to {classes - 1}"
        return reason, "if the labels are counted from 1: labels = labels - 1"
    return "", ""


def problem_of_classes(labels: Array, classes: int) -> tuple[str, str]:
    """Why labels are not one of these classes per sample, and the fix; both empty if the reason is another one."""
    numbers = whole_numbers(labels)
    if numbers is None or not numbers.size or classes < 2:
        return "", ""
    if numbers.size == len(numbers) and -1 <= int(numbers.min()) < 0 <= int(numbers.max()) < classes:
        return "some labels are -1, which is not a class", "leave these samples out: keep = labels >= 0"
    if numbers.shape == (len(numbers), classes) and np.isin(numbers, (0, 1)).all():
        reason = "the labels have rows with several classes or none, but the metric needs one class per sample"
        return reason, "give a metric for several classes per sample: --mnn-metric=file.py:callable"
    return "", ""


def are_grey_levels_of(labels: Array, output: Array) -> bool:
    """Whether labels are grey levels from 0 to 255, and the output has values from 0 to 1."""
    if labels.dtype.kind not in "iuf" or output.dtype.kind != "f" or not labels.size:
        return False
    if not (float(labels.min()) >= 0 and _GREY < float(labels.max()) <= IGNORED):
        return False
    is_share = float(output.min()) >= -_EXCESS and float(output.max()) <= 1 + _EXCESS
    return is_share and whole_numbers(labels) is not None
