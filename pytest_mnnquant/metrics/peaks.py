"""Heat maps: each map of a sample has one peak, whose place is the answer (joints, landmarks)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_LEAST_SIZE: Final = 12
#: A map without an object has no peak: its largest value is below this share of the usual height.
_PRESENT: Final = 0.5
_LEAST_PRESENT: Final = 0.25
#: The largest area above half of the height, as a share of the map; and the share of that area near the full height.
_SMALL: Final = 0.05
_POINTED, _FULL = 0.35, 0.95
#: Of fewer elements above half of the height, nothing is known of the peak's form.
_FEWEST: Final = 6
#: A peak keeps its place if it moves by at most this share of its radius, and keeps this share of its height.
_PLACE: Final = 0.5
_HEIGHT: Final = 0.5


@dataclass(frozen=True)
class PeakAgreement:
    """The peaks of the reference: `expected` in each sample, and how many of them have the same place in the output."""

    expected: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]

    @property
    def share(self) -> float:
        """The share of peaks that stay, in [0, 1]."""
        return float(self.kept.sum() / self.expected.sum())


def compare_peaks(reference: Array, output: Array) -> PeakAgreement | None:
    """Compare heat maps [samples, maps, height, width]; None for other outputs."""
    if reference.dtype.kind != "f" or reference.ndim != 4 or min(reference.shape[2:]) < _LEAST_SIZE:
        return None
    maps = reference.reshape(*reference.shape[:2], -1)
    middle, top = np.median(maps, 2), maps.max(2)
    heights = top - middle
    present = heights >= max(_PRESENT * float(np.quantile(heights, 0.9)), np.finfo(np.float32).tiny)
    if present.mean() < _LEAST_PRESENT:
        return None
    area, pointed = ((maps >= (middle + level * heights)[..., None]).sum(2)[present] for level in (_PRESENT, _FULL))
    radius = float(np.sqrt(np.median(area) / np.pi))
    is_blunt = np.median(area) >= _FEWEST and np.median(pointed / area) > _POINTED
    if is_blunt or np.median(area) > _SMALL * maps.shape[2]:
        return None
    if not _is_single(maps, middle + _PRESENT * heights, present, reference.shape[3], radius):
        return None
    other = output.reshape(maps.shape)
    moved = _distance(maps.argmax(2), other.argmax(2), reference.shape[3])
    height = other.max(2) - np.median(other, 2)
    kept = present & (moved <= _PLACE * radius) & (height >= _HEIGHT * heights)
    return PeakAgreement(present.sum(1).astype(np.int64), kept.sum(1).astype(np.int64))


def _is_single(maps: Array, levels: Array, present: Array, width: int, radius: float) -> bool:
    """Whether most of what is above half of the height lies around the peak."""
    places = np.arange(maps.shape[2])
    near = total = 0
    for sample, number in zip(*np.nonzero(present), strict=True):
        high = places[maps[sample, number] >= levels[sample, number]]
        distance = _distance(maps[sample, number].argmax(), high, width)
        near, total = near + int((distance <= 2 * radius + 1).sum()), total + len(high)
    return near >= 0.9 * total


def _distance(first: Array, second: Array, width: int) -> Array:
    """The larger of the distances along both axes, of places in flattened maps."""
    down, across = np.abs(first // width - second // width), np.abs(first % width - second % width)
    return np.asarray(np.maximum(down, across))
