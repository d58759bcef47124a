"""How a person looks at one sample's output: the form is chosen by its shape, type and values."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.evidence.detections import looks_like_boxes

Array = npt.NDArray[Any]
_LEAST: Final = 8
_MOST_CLASSES: Final = 64
_RGB: Final = 3
_FEW_CHANNELS: Final = 4
# Of a map of class scores: the usual distance of the two largest scores, as a share of their range.
_DISTINCT: Final = 0.05
# Scores of two classes are each other's opposite; two other channels are not.
_OPPOSITE: Final = -0.8


class Form(enum.Enum):
    """How an output is shown."""

    PICTURE = "picture"
    CHANNEL = "channel with the largest error"
    CLASSES = "class map"
    BOXES = "boxes"
    SPECTRUM = "spectrogram"
    CURVE = "values"


@dataclass(frozen=True)
class Shown:
    """One sample: the outputs of both models [...], and the input picture [channels, height, width] if it has one.

    `scores` are those of the boxes in `reference` and `output`, if they are another output.
    """

    reference: Array
    output: Array
    picture: Array | None = None
    scores: tuple[Array, Array] | None = None


def form_of(shown: Shown) -> Form:
    """The form of an output."""
    array = channels_first(shown.reference)
    if looks_like_boxes(shown.reference, shown.scores[0] if shown.scores else None, shown.picture):
        return Form.BOXES
    is_plane = array.ndim >= 2 and min(array.shape[-2:]) >= _LEAST and math.prod(array.shape[:-2]) >= 1
    if not is_plane:
        return Form.CURVE
    if array.dtype.kind in "iub":
        return Form.CLASSES
    if array.ndim == 2:
        return Form.SPECTRUM
    if array.ndim > 3:
        return Form.CHANNEL
    return _form_of_maps(array)


def _form_of_maps(maps: Array) -> Form:
    """Of [channels, height, width]."""
    if len(maps) in (1, _RGB) and not (len(maps) == _RGB and _are_scores(maps)):
        return Form.PICTURE
    return Form.CLASSES if len(maps) <= _MOST_CLASSES and _are_scores(maps) else Form.CHANNEL


def _are_scores(maps: Array) -> bool:
    """Whether channels are scores of classes: mostly one is far above the others, and several classes occur."""
    if np.unique(maps.argmax(0)).size < 2:
        return False
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    alike = np.atleast_2d(np.corrcoef(flat))
    if len(maps) == 2:
        return bool(alike[0, 1] < _OPPOSITE)
    if len(maps) == _RGB and alike[np.triu_indices(_RGB, 1)].mean() > 0:
        return False  # Colours are bright and dark together; scores of classes are not.
    largest = np.sort(flat, axis=0)[-2:]
    return bool(np.median(largest[1] - largest[0]) >= _DISTINCT * np.ptp(flat))


def channels_first(array: Array) -> Array:
    """[channels, height, width], also of an array with few channels at its end; axes of one at the front left out."""
    if array.ndim > 3 and array.shape[0] == 1:
        return channels_first(np.asarray(array[0]))
    if array.ndim == 3 and array.shape[-1] <= _FEW_CHANNELS < min(array.shape[:2]):
        return np.moveaxis(array, -1, 0)
    if array.ndim == 3 and array.shape[0] == 1 and array.dtype.kind in "iub":
        return np.asarray(array[0])
    return array
