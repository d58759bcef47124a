"""Networks whose output is mostly their input: super-resolution, denoising, deblurring, colour correction, speech.

What such a network is for is the small part that it adds. Here the input and a smooth form of the input are removed
from the output by linear regression; the rest is compared picture by picture. If the input does not explain the output
alone, the mean sample is removed from both before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import blocks_of, bounds_of, mean_sample, release

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: The input explains at least this share of the output's variance, or the output is not mostly the input.
_MOSTLY: Final = 0.8
#: Of fewer samples, the mean holds much of what they do not have in common.
_FEWEST_FOR_MEAN: Final = 8
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
    """Compare what outputs of equal shape [samples, ...] add to an input; None if they are not mostly an input.

    They may also be mostly an input about the mean sample.
    """
    detail = _compare(reference, output, inputs, is_centred=False)
    if detail is None and len(reference) >= _FEWEST_FOR_MEAN:
        detail = _compare(reference, output, inputs, is_centred=True)
    return detail


def _compare(reference: Array, output: Array, inputs: Mapping[str, Array], is_centred: bool) -> Detail | None:
    fits = (
        (*_without_input(pictures), name, pictures)
        for name, array in inputs.items()
        for pictures in _pictures(reference, output, array, is_centred)
    )
    explained, details, name, pictures = max(fits, key=lambda fit: fit[0], default=(0.0, np.empty(0), "", None))
    if explained < _MOSTLY or pictures is None:
        return None
    low, high = bounds_of(reference)
    floor = ((high - low) / _STEPS) ** 2 / 12 * 10 ** (_ROUNDED_DB / 10)
    errors = np.concatenate([_energy(made - other) for made, other, _ in pictures.blocks()])
    with np.errstate(divide="ignore"):
        decibels = 10 * np.log10((details + floor) / errors)
    return Detail(name, explained, np.clip(decibels, _WORST, _BEST))


@dataclass(frozen=True)
class _Pictures:
    """A reference, an output and an input as [samples, channels, positions ...], whose positions correspond."""

    reference: Array
    output: Array
    source: Array
    factors: list[float]
    is_centred: bool = False

    def blocks(self) -> Iterator[tuple[Floats, Floats, Floats]]:
        """The samples in blocks; the input has the positions of the reference."""
        features = 3 * self.source.shape[1] + self.reference.shape[1]
        mean, mean_source = self._means
        for chosen in blocks_of(len(self.reference), features * int(np.prod(self.reference.shape[2:]))):
            made, other = (array[chosen].astype(np.float64) - mean for array in (self.reference, self.output))
            yield made, other, _resized(self.source[chosen].astype(np.float64) - mean_source, self.factors)
            release(self.reference, self.output, self.source)

    @cached_property
    def _means(self) -> tuple[Floats | float, Floats | float]:
        """The mean samples of the reference and of the input if they are removed, else 0."""
        if not self.is_centred:
            return 0.0, 0.0
        mean, mean_source = (mean_sample(array).reshape(array.shape[1:]) for array in (self.reference, self.source))
        return mean, mean_source


def _pictures(reference: Array, output: Array, array: Array, is_centred: bool) -> Iterator[_Pictures]:
    """The forms in which a reference and an input have the same positions. Of large pictures the middle is taken."""
    if array.dtype.kind != "f" or len(array) != len(reference):
        return
    for picture, other in zip(_forms(reference), _forms(output), strict=True):
        for source in _forms(array):
            if picture.ndim == source.ndim and source.shape[1] <= _MOST_CHANNELS:
                factors = [_factor(*sizes) for sizes in zip(picture.shape[2:], source.shape[2:], strict=True)]
                if all(factor in _FACTORS or 1 / factor in _FACTORS for factor in factors):
                    yield dataclasses.replace(_in_the_middle(picture, other, source, factors), is_centred=is_centred)


def _in_the_middle(picture: Array, other: Array, source: Array, factors: list[float]) -> _Pictures:
    """The middle of a picture, of the output, and of the input at the same positions."""
    middle = [_middle(size, picture.ndim) for size in picture.shape[2:]]
    pairs = zip(middle, factors, strict=True)
    given = [slice(round(part.start / factor), round(part.stop / factor)) for part, factor in pairs]
    everything = (slice(None), slice(None))
    taken, made = (array[(*everything, *middle)] for array in (picture, other))
    return _Pictures(taken, made, source[(*everything, *given)], factors)


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


def _without_input(pictures: _Pictures) -> tuple[float, Floats]:
    """The share of a picture's variance that an input explains, and the mean energy of the rest, shape [samples]."""
    step = 1 + pictures.reference[:, 0].size // _ROWS
    chosen = [(matrix[::step], targets[::step]) for matrix, targets in _rows(pictures)]
    matrix, targets = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    weights, mean = np.linalg.lstsq(matrix, targets, rcond=None)[0], targets.mean(0)
    positions = int(np.prod(pictures.reference.shape[2:]))
    energies, variance, unexplained = [], 0.0, 0.0
    for matrix, targets in _rows(pictures):
        rest = np.square(targets - matrix @ weights)
        variance, unexplained = variance + float(np.square(targets - mean).sum()), unexplained + float(rest.sum())
        energies.append(rest.reshape(len(rest) // positions, -1).mean(1))
    return 1 - unexplained / variance if variance else 0.0, np.concatenate(energies)


def _rows(pictures: _Pictures) -> Iterator[tuple[Floats, Floats]]:
    """For the positions of each block of samples: the forms of the input and a constant, and the reference."""
    for made, _, source in pictures.blocks():
        forms = [source, _smooth(source, 1), _smooth(source, 2)]
        features = np.concatenate([form.reshape(len(source), source.shape[1], -1) for form in forms], 1)
        matrix = features.transpose(0, 2, 1).reshape(-1, features.shape[1])
        matrix = np.concatenate([matrix, np.ones((len(matrix), 1))], 1)
        yield matrix, made.reshape(len(made), made.shape[1], -1).transpose(0, 2, 1).reshape(len(matrix), -1)


def _energy(pictures: Floats) -> Floats:
    """The mean square of each sample."""
    return np.asarray(np.square(pictures).reshape(len(pictures), -1).mean(1))
