"""Heat maps: each map of a sample has one peak, whose place is the answer (joints, landmarks)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import sample_blocks

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


@dataclass(frozen=True)
class _Maps:
    """Of each map in [samples, maps, height, width]: its median, its largest value, and the place of that."""

    middle: Array
    top: Array
    place: npt.NDArray[np.int64]

    @property
    def heights(self) -> Array:
        """The height of the peak over the median."""
        return self.top - self.middle


def compare_peaks(reference: Array, output: Array) -> PeakAgreement | None:
    """Compare heat maps [samples, maps, height, width] or [samples, height, width, maps]; None for other outputs."""
    if reference.dtype.kind != "f" or reference.ndim != 4:
        return None
    peaks = _compare(reference, output)
    return peaks or _compare(np.moveaxis(reference, -1, 1), np.moveaxis(output, -1, 1))


def _compare(reference: Array, output: Array) -> PeakAgreement | None:
    if min(reference.shape[2:]) < _LEAST_SIZE:
        return None
    width, maps = reference.shape[3], _maps(reference)
    heights = maps.heights
    least = max(_PRESENT * float(np.quantile(heights, 0.9)), np.finfo(np.float32).tiny)
    present = heights >= least
    if present.mean() < _LEAST_PRESENT:
        return None
    area, pointed = (_areas(reference, maps.middle + level * heights)[present] for level in (_PRESENT, _FULL))
    radius = float(np.sqrt(np.median(area) / np.pi))
    is_blunt = np.median(area) >= _FEWEST and np.median(pointed / area) > _POINTED
    if is_blunt or np.median(area) > _SMALL * reference.shape[2] * width:
        return None
    if not _is_single(reference, maps, present, radius):
        return None
    others = _maps(output)
    moved = _distance(maps.place, others.place, width)
    height = others.heights
    is_taller = _HEIGHT * height > heights
    stays = present & (moved <= _PLACE * radius) & (height >= _HEIGHT * heights) & ~is_taller
    return _agreement(present | (is_taller & (height >= least)), stays)


def _maps(maps: Array) -> _Maps:
    parts = []
    for _, (block,) in sample_blocks(maps):
        flat = block.reshape(*block.shape[:2], -1)
        parts.append((np.median(flat, 2), flat.max(2), flat.argmax(2)))
    return _Maps(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _areas(maps: Array, levels: Array) -> npt.NDArray[np.int64]:
    """How many values of each map are at least its level, both by [samples, maps]."""
    counts = ((block >= level[:, :, None, None]).sum((2, 3)) for _, (block, level) in sample_blocks(maps, levels))
    return np.concatenate(list(counts))


def _agreement(expected: Flags, stays: Flags) -> PeakAgreement:
    """The agreement by flags [samples, maps]: of all maps, or of the worst if only a few are lost."""
    counts = expected.sum(0)
    shares = np.where(counts >= _FEWEST_OF_A_MAP, stays.sum(0) / np.maximum(counts, 1), 1.0)
    worst = None
    if shares.min() < _OF_A_MAP <= stays.sum() / expected.sum():
        worst = int(shares.argmin())
        expected, stays = (flags[:, [worst]] for flags in (expected, stays))
    return PeakAgreement(expected.sum(1).astype(np.int64), stays.sum(1).astype(np.int64), worst)


def _is_single(reference: Array, maps: _Maps, present: Array, radius: float) -> bool:
    """Whether most of what is above half of the height lies around the peak."""
    levels, width = maps.middle + _PRESENT * maps.heights, reference.shape[3]
    near = total = 0
    for sample, number in zip(*np.nonzero(present), strict=True):
        high = np.flatnonzero(reference[sample, number] >= levels[sample, number])
        distance = _distance(maps.place[sample, number], high, width)
        near, total = near + int((distance <= 2 * radius + 1).sum()), total + len(high)
    return near >= 0.9 * total


def _distance(first: Array, second: Array, width: int) -> Array:
    """The larger of the distances along both axes, of places in flattened maps."""
    down, across = np.abs(first // width - second // width), np.abs(first % width - second % width)
    return np.asarray(np.maximum(down, across))
