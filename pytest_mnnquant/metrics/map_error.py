"""The error of maps with a value for each position of a picture: depth, colours, flow, disparity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import bounds_of, count_true, largest_of, sample_blocks, values_at

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_MOST_CHANNELS: Final = 4
_LEAST_SIZE: Final = 16
#: Sizes of the map / sizes of the picture. Coarser maps are those of detectors: most values belong to no object.
_FACTORS: Final = (0.5, 1.0, 2.0, 3.0, 4.0, 8.0)
#: Values within this share of the range from one of its ends are saturated; at most half of the elements may be.
_END, _MOST_SATURATED = 0.02, 0.5
#: A range is at most this multiple of that of all values but one of 1000 at each end, so that outliers do not widen it.
_TAIL, _WIDEST = 0.001, 1.5
#: If the bulk of the values has less than this share of the range, the map is sparse: what is rare is its content.
_SPARSE: Final = 0.1
#: Channels whose range is smaller, as a share of the largest, are too coarse in int8 for this comparison.
_LEAST_RANGE: Final = 0.05
#: Steps of int8 between -1 and 1 times the largest absolute value. All channels of a tensor are rounded so.
_STEPS: Final = 254
_QUANTILE_VALUES: Final = 1_000_000
_TINY: Final = 1e-300


@dataclass(frozen=True)
class MapError:
    """The mean square error of each sample and channel beyond one rounding to int8, and the range of each channel.

    `errors` has shape [samples, channels], `spans` [channels], without the channels that are not compared.
    """

    errors: Floats
    spans: Floats

    @property
    def span(self) -> float:
        """The range of the worst channel of all samples."""
        return float(self.spans[self._decibels(slice(None)).argmin()])

    def psnr_db(self, chosen: npt.NDArray[np.int64] | slice = slice(None)) -> float:
        """Square of the range / mean square error of the worst channel, in dB; infinite without an error."""
        return float(self._decibels(chosen).min())

    def _decibels(self, chosen: npt.NDArray[np.int64] | slice) -> Floats:
        errors = self.errors[chosen].mean(0)
        decibels = 20 * np.log10(self.spans) - 10 * np.log10(np.maximum(errors, _TINY))
        return np.where(errors > _TINY, decibels, math.inf)


def compare_maps(reference: Array, output: Array, inputs: Mapping[str, Array]) -> MapError | None:
    """Compare maps of equal shape [samples, ...]; None if no input is a picture with such positions.

    Maps whose values are mostly at the ends of their range are not quantities: decisions by them count.
    """
    if reference.dtype.kind != "f" or not any(is_map_of(reference, array) for array in inputs.values()):
        return None
    maps, others = _channels_first(reference), _channels_first(output)
    spans = np.array([_span(maps[:, channel]) for channel in range(maps.shape[1])])
    judged = np.flatnonzero(spans >= max(_LEAST_RANGE * spans.max(), np.finfo(np.float32).tiny))
    judged = judged[[not _is_saturated(maps[:, channel], spans[channel]) for channel in judged]]
    if not len(judged):
        return None
    errors = [
        np.square(first[:, judged].astype(np.float64) - second[:, judged]).mean((2, 3))
        for _, (first, second) in sample_blocks(maps, others)
    ]
    rounding = (2 * largest_of(reference) / _STEPS) ** 2 / 12
    return MapError(np.concatenate(errors) - rounding, spans[judged])


def _channels_first(array: Array) -> Array:
    """Maps as `_sizes` reads them, with shape [samples, channels, height, width]."""
    if array.ndim == 3:
        return array[:, None]
    return array if array.shape[1] <= _MOST_CHANNELS else np.moveaxis(array, -1, 1)


def _span(values: Array) -> float:
    """The range of values, which single outliers do not widen."""
    least, most = bounds_of(values)
    whole = most - least
    low, high = np.quantile(values_at(values, 1 + values.size // _QUANTILE_VALUES), (_TAIL, 1 - _TAIL))
    bulk = float(high) - float(low)
    return min(whole, _WIDEST * bulk) if bulk >= _SPARSE * whole else whole


def _is_saturated(values: Array, span: float) -> bool:
    """Whether most values are at the ends of the range."""
    low, high = bounds_of(values)
    end = _END * span
    return count_true(lambda block: (block < low + end) | (block > high - end), values) > _MOST_SATURATED * values.size


def _sizes(array: Array) -> tuple[int, int] | None:
    """Height and width of pictures of few channels, or of a single one without an axis; None for other arrays."""
    shape = array.shape
    if array.ndim == 3:
        sizes = shape[1:]
    elif array.ndim == 4 and min(shape[1], shape[3]) <= _MOST_CHANNELS:
        sizes = shape[2:] if shape[1] <= _MOST_CHANNELS else shape[1:3]
    else:
        return None
    return (sizes[0], sizes[1]) if min(sizes) >= _LEAST_SIZE else None


def is_map_of(reference: Array, array: Array) -> bool:
    """Whether an input is a picture with the positions of a map, or a multiple or a part of them."""
    sizes, source = _sizes(reference), _sizes(array) if array.ndim == 4 else None
    if sizes is None or source is None:
        return False
    factors = {size / given for size, given in zip(sizes, source, strict=True)}
    return len(factors) == 1 and factors.pop() in _FACTORS
