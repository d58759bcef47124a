"""Channels of probabilities at many places: a class, or the objectness, of each candidate or position.

1 is the natural size of each, so the others can't hide that one of them is lost, as channels of features could.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import elements_of, mapped
from pytest_mnnquant.metrics.variation import Variation, variation

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
_MOST_CHANNELS: Final = 256
#: A channel that is above this probability in fewer samples says too little.
_PRESENT, _FEWEST_SAMPLES = 0.5, 8


@dataclass(frozen=True)
class ProbabilityChannel:
    """The variation of one channel over samples: of `index` (from 0) on `axis` of outputs [samples, ...]."""

    axis: int
    index: int
    variation: Variation


def worst_channel(reference: Array, output: Array, are_probabilities: Flags) -> ProbabilityChannel | None:
    """The channel of probabilities that lost most, of outputs of equal shape [samples, ...]; None without any.

    `are_probabilities` has the shape of one sample, of at least two axes.
    """
    if reference.ndim < 3 or not are_probabilities.any():
        return None
    axis = _channel_axis(are_probabilities)
    judged = []
    for index in range(reference.shape[axis]) if reference.shape[axis] <= _MOST_CHANNELS else ():
        chosen = np.take(are_probabilities, index, axis - 1)
        values, others = (elements_of(np.moveaxis(array, axis, 0)[index], chosen) for array in (reference, output))
        if values.size and (mapped(_highest, values) >= _PRESENT).sum() >= _FEWEST_SAMPLES:
            measured = variation(values, others)
            if not measured.is_constant:
                judged.append(ProbabilityChannel(axis, index, measured))
    return min(judged, key=lambda channel: channel.variation.sqnr_db, default=None)


def _highest(values: Array) -> Array:
    """The largest value of each sample."""
    return np.asarray(values.reshape(len(values), -1).max(1))


def _channel_axis(are_probabilities: Flags) -> int:
    """The axis of channels, in outputs [samples, ...]: only some of its elements are probabilities, or it is short."""
    shape = are_probabilities.shape
    mixed = (axis for axis in range(len(shape)) if not (are_probabilities == are_probabilities.take([0], axis)).all())
    return 1 + next(mixed, 0 if shape[0] <= shape[-1] else len(shape) - 1)
