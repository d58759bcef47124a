"""Blocks of samples: float64 copies of whole outputs would fill the memory, so measures convert one block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: The most elements of a block, if a sample has fewer.
_ELEMENTS: Final = 1 << 21


def blocks_of(samples: int, elements: int) -> Iterator[slice]:
    """The samples in blocks, in order; a sample has this number of `elements`."""
    size = max(1, _ELEMENTS // max(1, elements))
    return (slice(start, min(start + size, samples)) for start in range(0, samples, size))


def blocks(*arrays: Array) -> Iterator[tuple[slice, tuple[Floats, ...]]]:
    """The blocks of arrays with equal samples on their first axis, in float64, flattened to [samples, elements]."""
    count = len(arrays[0])
    sizes = [array.size // max(1, count) for array in arrays]
    for chosen in blocks_of(count, max(sizes)):
        yield (
            chosen,
            tuple(array[chosen].reshape(chosen.stop - chosen.start, -1).astype(np.float64) for array in arrays),
        )


def mean_sample(values: Array) -> Floats:
    """The mean of the samples, shape [elements]; exact if they are equal: the first one is subtracted."""
    first = values[0].reshape(-1).astype(np.float64)
    total = np.zeros_like(first)
    for _, (block,) in blocks(values):
        total += (block - first).sum(0)
    return np.asarray(first + total / len(values))


def energies(reference: Array, output: Array, mean: Floats | float = 0.0) -> tuple[Floats, Floats]:
    """The energy of the reference about a mean sample [elements], and that of the error, both of shape [samples]."""
    signal, noise = np.empty(len(reference)), np.empty(len(reference))
    for chosen, (first, second) in blocks(reference, output):
        noise[chosen] = np.square(first - second).sum(1)
        signal[chosen] = np.square(first - mean).sum(1)
    return signal, noise
