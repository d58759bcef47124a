"""Heat maps: each map of a sample has one peak, whose place is the answer (joints, landmarks)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
_LEAST_SIZE: Final = 12
#: A map without an object has no peak: its largest value is below this share of the usual height.
_PRESENT: Final = 0.5
_LEAST_PRESENT: Final = 0.25
#: The largest area above half of the height, as a share of the map; and the share of that area near the full height.
_SMALL: Final = 0.05
_POINTED, _FULL = 0.35, 0.95
#: Of fewer elements above half of the height, nothing is known of the peak's form.
_FEWEST: Final = 6
#: A peak keeps its place if it moves by at most this share of its radius. Its height changes by at most this factor.
_PLACE: Final = 0.5
_HEIGHT: Final = 0.5
#: A map (joint) is lost if fewer of its peaks stay. Fewer peaks than this show nothing of a single map.
_OF_A_MAP: Final = 0.5
_FEWEST_OF_A_MAP: Final = 8


@dataclass(frozen=True)
class PeakAgreement:
    """The peaks in each sample: `expected` is the number in reference or output, `kept` of those at the same place.

    Of the output only peaks in maps without a peak in the reference count. If most peaks stay, but not those of
    a map with at least 8, only the peaks of the worst such map count, and `map` is its number from 0, else None.
    """

    expected: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    map: int | None = None

    @property
    def share(self) -> float:
        """The share of peaks that stay, in [0, 1]."""
        return float(self.kept.sum() / self.expected.sum())


def compare_peaks(reference: Array, output: Array) -> PeakAgreement | None:
    """Compare heat maps [samples, maps, height, width] or [samples, height, width, maps]; None for other outputs."""
    if reference.dtype.kind != "f" or reference.ndim != 4:
        return None
    peaks = _compare(reference, output)
    return peaks or _compare(np.moveaxis(reference, -1, 1), np.moveaxis(output, -1, 1))


def _compare(reference: Array, output: Array) -> PeakAgreement | None:
    if min(reference.shape[2:]) < _LEAST_SIZE:
        return None
    maps = reference.reshape(*reference.shape[:2], -1)
    middle, top = np.median(maps, 2), maps.max(2)
    heights = top - middle
    least = max(_PRESENT * float(np.quantile(heights, 0.9)), np.finfo(np.float32).tiny)
    present = heights >= least
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
    is_taller = _HEIGHT * height > heights
    stays = present & (moved <= _PLACE * radius) & (height >= _HEIGHT * heights) & ~is_taller
    return _agreement(present | (is_taller & (height >= least)), stays)


def _agreement(expected: Flags, stays: Flags) -> PeakAgreement:
    """The agreement by flags [samples, maps]: of all maps, or of the worst if only a few are lost."""
    counts = expected.sum(0)
    shares = np.where(counts >= _FEWEST_OF_A_MAP, stays.sum(0) / np.maximum(counts, 1), 1.0)
    worst = None
    if shares.min() < _OF_A_MAP <= stays.sum() / expected.sum():
        worst = int(shares.argmin())
        expected, stays = (flags[:, [worst]] for flags in (expected, stays))
    return PeakAgreement(expected.sum(1).astype(np.int64), stays.sum(1).astype(np.int64), worst)


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
