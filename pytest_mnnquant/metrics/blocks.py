"""Blocks of samples: outputs may be larger than the memory, so measures read and convert one block at a time."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: The most elements of a block, if a sample has fewer.
_ELEMENTS: Final = 1 << 21
#: Results of this size lie in a file, in bytes.
_LARGE: Final = 1 << 26


def blocks_of(samples: int, elements: int) -> Iterator[slice]:
    """The samples in blocks, in order; a sample has this number of `elements`."""
    size = max(1, _ELEMENTS // max(1, elements))
    return (slice(start, min(start + size, samples)) for start in range(0, samples, size))


def sample_blocks(*arrays: Array) -> Iterator[tuple[slice, tuple[Array, ...]]]:
    """The blocks of arrays with equal samples on their first axis, not converted."""
    count = len(arrays[0])
    for chosen in blocks_of(count, max(array.size // max(1, count) for array in arrays)):
        yield chosen, tuple(array[chosen] for array in arrays)
        release(*arrays)


def blocks(*arrays: Array) -> Iterator[tuple[slice, tuple[Floats, ...]]]:
    """The blocks of arrays with equal samples on their first axis, in float64, flattened to [samples, elements]."""
    for chosen, parts in sample_blocks(*arrays):
        yield chosen, tuple(part.reshape(len(part), -1).astype(np.float64) for part in parts)


def release(*arrays: Array) -> None:
    """Give back the memory of what was read from files; it is read again when it is needed."""
    for array in arrays:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap):
            base.madvise(mmap.MADV_DONTNEED)


def new_array(shape: tuple[int, ...], kind: npt.DTypeLike) -> Array:
    """An array to be filled; a large one lies in a file, which is deleted with it. Raises `OSError` on a full disk."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if size < _LARGE:
        return np.empty(shape, kind)
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, size)  # Else a full disk would end the process at the first write.
        return np.asarray(np.memmap(file, np.dtype(kind), "w+", shape=shape))


def mapped(function: Callable[[Array], Array], array: Array) -> Array:
    """What a function of samples gives, block by block; `function` keeps the number of samples."""
    made: Array | None = None
    for chosen, (block,) in sample_blocks(array):
        part = function(block)
        if made is None:
            made = new_array((len(array), *part.shape[1:]), part.dtype)
        made[chosen] = part
        release(made)
    return function(array) if made is None else made


def elements_of(array: Array, mask: npt.NDArray[np.bool_]) -> Array:
    """The elements of each sample that a mask of its shape chooses, [samples, elements]; the array itself if all."""
    if mask.all():
        return array
    return mapped(lambda block: block[:, mask], array)


def is_true_of_all(holds: Callable[..., Any], *arrays: Array) -> bool:
    """Whether a function of arrays with equal samples is True, or all True, for all blocks."""
    return all(np.all(holds(*parts)) for _, parts in sample_blocks(*arrays))


def are_equal(first: Array, second: Array) -> bool:
    """Whether two arrays have the same shape and values."""
    return first.shape == second.shape and (not first.size or is_true_of_all(np.equal, first, second))


def count_true(flags: Callable[..., Array], *arrays: Array) -> int:
    """For how many elements a function of arrays with equal samples is True."""
    return sum(int(np.count_nonzero(flags(*parts))) for _, parts in sample_blocks(*arrays))


def bounds_of(array: Array) -> tuple[float, float]:
    """The smallest and the largest value of an array that is not empty; NaN if it holds NaN."""
    pairs = [(float(block.min()), float(block.max())) for _, (block,) in sample_blocks(array)]
    lows, highs = zip(*pairs, strict=True)
    return float(np.min(lows)), float(np.max(highs))


def largest_of(array: Array) -> float:
    """The largest absolute value of an array that is not empty; NaN if it holds NaN."""
    low, high = bounds_of(array)
    return float(np.maximum(-low, high))


def rows_at(array: Array, step: int) -> Array:
    """Each `step`-th vector along the last axis of [samples, ..., elements], in their order; shape [rows, elements]."""
    rows, place = [], 0
    for _, (block,) in sample_blocks(array):
        vectors = block.reshape(-1, array.shape[-1])
        rows.append(np.array(vectors[-place % step :: step]))
        place += len(vectors)
    return np.concatenate(rows)


def values_at(array: Array, step: int) -> Array:
    """Each `step`-th value of the flattened array [samples, ...], in their order."""
    return np.asarray(rows_at(array[..., None], step)[:, 0])


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
