"""The error of maps with a value for each position of a picture: depth, colours, flow, disparity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_MOST_CHANNELS: Final = 4
_LEAST_SIZE: Final = 16
#: Sizes of the map / sizes of the picture. Coarser maps are those of detectors: most values belong to no object.
_FACTORS: Final = (0.5, 1.0, 2.0, 3.0, 4.0, 8.0)
#: Values within this share of the range from one of its ends are saturated; at most half of the elements may be.
_END, _MOST_SATURATED = 0.02, 0.5
_TINY: Final = 1e-300


@dataclass(frozen=True)
class MapError:
    """The mean square error of each sample, shape [samples], and the range of the reference's values."""

    errors: npt.NDArray[np.float64]
    span: float

    def psnr_db(self, chosen: npt.NDArray[np.int64] | slice = slice(None)) -> float:
        """Square of the range / mean square error, in dB; infinite without an error."""
        error = float(self.errors[chosen].mean())
        return 20 * math.log10(self.span) - 10 * math.log10(error) if error > _TINY else math.inf


def compare_maps(reference: Array, output: Array, inputs: Mapping[str, Array]) -> MapError | None:
    """Compare maps of equal shape [samples, ...]; None if no input is a picture with such positions.

    Maps whose values are mostly at the ends of their range are not quantities: decisions by them count.
    """
    sizes = _sizes(reference)
    if reference.dtype.kind != "f" or not any(_fits(sizes, array) for array in inputs.values()):
        return None
    low, high = float(reference.min()), float(reference.max())
    end = _END * (high - low)
    if high <= low or ((reference < low + end) | (reference > high - end)).mean() > _MOST_SATURATED:
        return None
    pairs = zip(reference, output, strict=True)  # One by one: float64 copies of all would fill the memory.
    errors = [float(np.square(first.astype(np.float64) - second).mean()) for first, second in pairs]
    return MapError(np.array(errors), high - low)


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


def _fits(sizes: tuple[int, int] | None, array: Array) -> bool:
    """Whether an input is a picture with these positions, or a multiple or a part of them."""
    source = _sizes(array) if array.ndim == 4 else None
    if sizes is None or source is None:
        return False
    factors = {size / given for size, given in zip(sizes, source, strict=True)}
    return len(factors) == 1 and factors.pop() in _FACTORS
