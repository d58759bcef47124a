"""Channels of one output whose values have different sizes: coordinates in pixels beside scores, angles, or ages.

A network may compute them in one layer, so that its graph does not show them as parts. Only groups that are far apart
in every part of the data count: a class that rarely occurs, or a silent moment, is not a unit of its own.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

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
        if 0 < axis < reference.ndim and 1 < reference.shape[axis] <= _MOST_CHANNELS:
            channels = np.abs(np.moveaxis(reference, axis, 1).reshape(len(reference), reference.shape[axis], -1))
            if (groups := _groups(channels)) is not None:
                shape = [1] * (reference.ndim - 1)
                shape[axis - 1] = len(groups)
                return np.broadcast_to(groups.reshape(shape), reference.shape[1:])
    return None


def _groups(channels: Array) -> npt.NDArray[np.int32] | None:
    """The group of each channel, of absolute values [samples, channels, positions]; group 0 has those of zeros."""
    sizes = channels.max((0, 2))
    if 0 < (counts := sizes > 0).sum() < len(sizes):
        if (used := _groups(channels[:, counts])) is None:
            return None
        groups = np.zeros(len(sizes), np.int32)
        groups[counts] = used
        return groups
    order = np.argsort(sizes)
    jumps = np.flatnonzero(sizes[order][1:] > _APART * sizes[order][:-1]) + 1
    if not 0 < len(jumps) < _MOST_GROUPS:
        return None
    groups = np.zeros(len(sizes), np.int32)
    for jump in jumps:
        groups[order[jump:]] += 1
    blocks = [block.max((0, 2)) for block in np.array_split(channels, _BLOCKS)]
    for number in range(groups.max()):
        smaller, larger = groups == number, groups == number + 1
        if any(block[larger].min() < _APART_IN_BLOCKS * block[smaller].max() for block in blocks):
            return None
        small = channels[:, smaller]
        if (small > 0.01 * small.max()).mean() < _USED:
            return None
    return groups
