"""Channels of one output whose values have different sizes: coordinates in pixels beside scores, angles, or ages.

A network may compute them in one layer, so that its graph does not show them as parts. Only groups that are far apart
in every part of the data count: a class that rarely occurs, or a silent moment, is not a unit of its own.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import count_true, mapped

Array = npt.NDArray[Any]
#: The largest value of a group / that of the next smaller group, over all samples, and within each block of samples.
_APART, _APART_IN_BLOCKS = 20.0, 5.0
_BLOCKS: Final = 4
_FEWEST_SAMPLES: Final = 8
_MOST_CHANNELS: Final = 256
_MOST_GROUPS: Final = 4
#: In a unit of its own, at least this share of the values is above a hundredth of the largest: rare values are not.
_USED: Final = 0.5


def channel_groups(reference: Array) -> npt.NDArray[np.int32] | None:
    """The number of the group of each element, in the shape of one sample; None if all channels are alike.

    Groups are numbered from the smallest values to the largest.
    """
    if reference.dtype.kind != "f" or len(reference) < _FEWEST_SAMPLES:
        return None
    for axis in dict.fromkeys((1, reference.ndim - 1)):
        is_axis_of_channels = 0 < axis < reference.ndim and 1 < reference.shape[axis] <= _MOST_CHANNELS
        if is_axis_of_channels and (groups := _groups(np.moveaxis(reference, axis, 1))) is not None:
            shape = [1] * (reference.ndim - 1)
            shape[axis - 1] = len(groups)
            return np.broadcast_to(groups.reshape(shape), reference.shape[1:])
    return None


def _groups(channels: Array) -> npt.NDArray[np.int32] | None:
    """The group of each channel, of values [samples, channels, ...]; group 0 has those of zeros."""
    peaks = mapped(_peaks, channels)
    sizes = peaks.max(0)
    used = np.flatnonzero(sizes > 0)
    if not len(used) or (groups := _groups_by_size(peaks[:, used])) is None:
        return None
    whole = np.zeros(len(sizes), np.int32)
    whole[used] = groups
    for number in range(groups.max()):
        smaller = used[groups == number]
        if _share_above(channels, smaller, 0.01 * sizes[smaller].max()) < _USED:
            return None
    return whole


def _share_above(channels: Array, chosen: npt.NDArray[np.int64], least: float) -> float:
    """The share of the values of the chosen channels whose absolute value is larger."""
    count = count_true(lambda block: np.abs(block[:, chosen]) > least, channels)
    return count / (channels[:, 0].size * len(chosen))


def _peaks(channels: Array) -> Array:
    """The largest absolute value of each sample and channel, of [samples, channels, ...]."""
    return np.asarray(np.abs(channels).reshape(*channels.shape[:2], -1).max(2))


def _groups_by_size(peaks: Array) -> npt.NDArray[np.int32] | None:
    """The groups of channels by their peaks [samples, channels], if they are far apart in all blocks of samples."""
    sizes = peaks.max(0)
    order = np.argsort(sizes)
    jumps = np.flatnonzero(sizes[order][1:] > _APART * sizes[order][:-1]) + 1
    if not 0 < len(jumps) < _MOST_GROUPS:
        return None
    groups = np.zeros(len(sizes), np.int32)
    for jump in jumps:
        groups[order[jump:]] += 1
    for number in range(groups.max()):
        smaller, larger = groups == number, groups == number + 1
        for block in np.array_split(peaks, _BLOCKS):
            if block.max(0)[larger].min() < _APART_IN_BLOCKS * block.max(0)[smaller].max():
                return None
    return groups
