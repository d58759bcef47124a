"""Networks whose output is mostly their input: super-resolution, denoising, deblurring, colour correction, speech.

What such a network is for is the small part that it adds. Here the input and a smooth form of the input are removed
from the output by linear regression; the rest is compared picture by picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: The input explains at least this share of the output's variance, or the output is not mostly the input.
_MOSTLY: Final = 0.8
#: Fewer positions than this are not a picture or a signal.
_FEWEST: Final = 64
_MOST_CHANNELS: Final = 4
_ROWS: Final = 100_000
#: A multiple of all factors.
_STEP: Final = 24
#: The most positions along an axis of a signal, and of a picture: multiples of all factors.
_MOST_POSITIONS: Final = (9600, 120)
_FACTORS: Final = (1, 2, 3, 4, 6, 8)
#: Steps between the smallest and the largest value of a picture; a smaller detail is not visible.
_STEPS: Final = 255
#: Noise of one such rounding always meets the usual limit of 5 dB; 3 dB more, since both input and output are rounded.
_ROUNDED_DB: Final = 8.0
#: A sample without any detail, or without error, has one of these values, in dB.
_WORST, _BEST = -10.0, 60.0


@dataclass(frozen=True)
class Detail:
    """The detail that a network adds to its input against the error of an output.

    `input` names the input that explains `explained` of the output's variance. `sqnr_db` has shape [samples]: energy
    of the detail / energy of the error, in dB, between -10 and 60; the detail is raised by 8 dB above the rounding
    noise of 255 steps, so that invisible noise is allowed.
    """

    input: str
    explained: float
    sqnr_db: Floats


def compare_detail(reference: Array, output: Array, inputs: Mapping[str, Array]) -> Detail | None:
    """Compare what outputs of equal shape [samples, ...] add to an input; None if they are not mostly an input."""
    fits = (
        (explained, name, rest, error)
        for name, array in inputs.items()
        for picture, error, source in _pictures(reference, output, array)
        for explained, rest in [_without_input(picture, source)]
    )
    explained, name, rest, error = max(fits, key=lambda fit: fit[0], default=(0.0, "", np.empty(0), np.empty(0)))
    if explained < _MOSTLY:
        return None
    span = float(reference.max()) - float(reference.min())
    floor = (span / _STEPS) ** 2 / 12 * 10 ** (_ROUNDED_DB / 10)
    detail = np.square(rest).reshape(len(rest), -1).mean(1) + floor
    with np.errstate(divide="ignore"):
        decibels = 10 * np.log10(detail / np.square(error).reshape(len(error), -1).mean(1))
    return Detail(name, explained, np.clip(decibels, _WORST, _BEST))


def _pictures(reference: Array, output: Array, array: Array) -> Iterator[tuple[Floats, Floats, Floats]]:
    """The reference, the error and an input as [samples, channels, positions ...], if their positions correspond.

    Of large pictures the middle is taken.
    """
    if array.dtype.kind != "f" or len(array) != len(reference):
        return
    for picture, other in zip(_forms(reference), _forms(output), strict=True):
        for source in _forms(array):
            if picture.ndim == source.ndim and source.shape[1] <= _MOST_CHANNELS:
                factors = [_factor(*sizes) for sizes in zip(picture.shape[2:], source.shape[2:], strict=True)]
                if all(factor in _FACTORS or 1 / factor in _FACTORS for factor in factors):
                    yield _in_the_middle(picture, other, source, factors)


def _in_the_middle(picture: Array, other: Array, source: Array, factors: list[float]) -> tuple[Floats, Floats, Floats]:
    """The middle of a picture, of its error, and of the input at the same positions."""
    middle = [_middle(size, picture.ndim) for size in picture.shape[2:]]
    pairs = zip(middle, factors, strict=True)
    given = [slice(round(part.start / factor), round(part.stop / factor)) for part, factor in pairs]
    everything = (slice(None), slice(None))
    taken = picture[(*everything, *middle)].astype(np.float64)
    error = taken - other[(*everything, *middle)]
    return taken, error, _resized(source[(*everything, *given)].astype(np.float64), factors)


def _middle(size: int, axes: int) -> slice:
    """The middle positions of an axis; its ends are multiples of all factors."""
    most = _MOST_POSITIONS[axes - 3]
    if size <= most:
        return slice(0, size)
    start = (size - most) // 2 // _STEP * _STEP
    return slice(start, start + most)


def _forms(array: Array) -> Iterator[Array]:
    """The array as [samples, channels, positions ...], for channels first, last and missing."""
    if array.ndim < 2:  # One number per sample.
        return
    for form in (array, np.moveaxis(array, -1, 1), array[:, None]):
        positions = form.shape[2:]
        if 1 <= len(positions) <= 2 and min(positions) >= 8 and np.prod(positions) >= _FEWEST:
            yield form


def _factor(output: int, source: int) -> float:
    return output // source if output % source == 0 else 1 / (source // output) if source % output == 0 else 0.1


def _resized(source: Floats, factors: list[float]) -> Floats:
    """The source with the positions of the output: repeated, or the mean of neighbours."""
    for axis, factor in enumerate(factors, 2):
        if factor >= 1:
            source = np.repeat(source, int(factor), axis)
        else:
            count = round(1 / factor)
            shape = (*source.shape[:axis], source.shape[axis] // count, count, *source.shape[axis + 1 :])
            source = source.reshape(shape).mean(axis + 1)
    return source


def _smooth(source: Floats, reach: int) -> Floats:
    """The mean over `reach` positions on both sides, along each axis of positions."""
    for axis in range(2, source.ndim):
        widths = [(reach, reach) if item == axis else (0, 0) for item in range(source.ndim)]
        sums = np.cumsum(np.pad(source, widths, "edge"), axis)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis)
        size = source.shape[axis]
        later, earlier = (sums.take(range(start, start + size), axis) for start in (2 * reach + 1, 0))
        source = (later - earlier) / (2 * reach + 1)
    return source


def _without_input(picture: Floats, source: Floats) -> tuple[float, Floats]:
    """The share of a picture's variance that an input explains, and the rest, in the shape of the picture."""
    forms = [source, _smooth(source, 1), _smooth(source, 2)]
    features = np.concatenate([form.reshape(len(source), source.shape[1], -1) for form in forms], 1)
    matrix = features.transpose(0, 2, 1).reshape(-1, features.shape[1])
    matrix = np.concatenate([matrix, np.ones((len(matrix), 1))], 1)
    targets = picture.reshape(len(picture), picture.shape[1], -1).transpose(0, 2, 1).reshape(len(matrix), -1)
    rows = np.linspace(0, len(matrix) - 1, min(len(matrix), _ROWS)).astype(np.int64)
    weights = np.linalg.lstsq(matrix[rows], targets[rows], rcond=None)[0]
    rest = targets - matrix @ weights
    variance = float(np.square(targets - targets.mean(0)).sum())
    explained = 1 - float(np.square(rest).sum()) / variance if variance else 0.0
    positions = picture.shape[2:]
    shaped = rest.reshape(len(picture), *positions, picture.shape[1])
    return explained, np.moveaxis(shaped, -1, 1)
