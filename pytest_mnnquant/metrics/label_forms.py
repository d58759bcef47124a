"""Labels in the forms that people save them in: class numbers as floats, in a column, or as one-hot rows."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Classes = npt.NDArray[np.int64]
_NUMBERS: Final = "biuf"
_TEXT: Final = "USO"


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
