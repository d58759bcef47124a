"""Samples and their labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.sample_axes import Axis
from pytest_mnnquant.metrics.blocks import sample_blocks


def spread_evenly(total: int, most: int, *, ends: bool = True) -> npt.NDArray[np.int64]:
    """The numbers of at most `most` of `total` items at equal distances, always the same ones; all, if not more.

    With `ends` the first and the last item are included; without, the middle of each of `most` equal parts is used.
    """
    count = min(total, most)
    if ends:
        return np.linspace(0, total - 1, count).astype(np.int64)
    return (2 * np.arange(count) + 1) * total // (2 * count)


def spread_over_classes(labels: npt.NDArray[Any], most: int) -> npt.NDArray[np.int64]:
    """The numbers of at most `most` samples: as many of each class as its share, at least one, evenly spread in it.

    If `most` is below the number of classes, one sample of each of `most` classes.
    """
    groups = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    count = min(most, len(labels))
    if count < len(groups):
        groups = [groups[number] for number in spread_evenly(len(groups), count, ends=False)]
    sizes = np.array([len(group) for group in groups])
    counts = np.ones(len(groups), np.int64)
    for _ in range(count - len(groups)):
        counts[np.argmax(np.where(counts < sizes, sizes * (count / len(labels)) - counts, -np.inf))] += 1
    parts = [group[spread_evenly(len(group), n, ends=False)] for group, n in zip(groups, counts.tolist(), strict=True)]
    return np.sort(np.concatenate(parts))


@dataclass(frozen=True)
class Dataset:
    """Samples: one array per input, the first axis counts samples; `labels` has shape [samples, ...] or is None.

    `alone`: the model takes one sample at a time. `axes` gives the axis of the model's input that counts samples, if it
    is not the first; see `SampleAxes`. `lengths`: samples are the steps of sequences, and it counts the steps of each;
    `per_sequence`: all steps of a sequence have its label. `classes`: the number of classes that named the labels; 0 if
    they are numbers. `items`: the number of equal arrays that were joined.
    """

    inputs: dict[str, npt.NDArray[Any]]
    labels: npt.NDArray[Any] | None = None
    origin: str = field(default="data", compare=False)
    alone: bool = False
    axes: Mapping[str, Axis] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    per_sequence: bool = False
    classes: int = field(default=0, compare=False)
    items: int = field(default=0, compare=False)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def head(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """The inputs of the first `count` samples."""
        return {name: array[:count] for name, array in self.inputs.items()}

    def batches(self, size: int) -> Iterable[dict[str, npt.NDArray[Any]]]:
        """The inputs as the model takes them, in batches of `size` samples (of one, if it takes one at a time)."""
        size = 1 if self.is_single else size
        for start in range(0, self.samples, size):
            yield self._batch(slice(start, start + size))

    def batch(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """The inputs of the first `count` samples, as the model takes them."""
        return self._batch(slice(1 if self.is_single else count))

    @property
    def is_single(self) -> bool:
        """Whether the model takes one sample at a time."""
        return self.alone or None in self.axes.values()

    def _batch(self, chosen: slice) -> dict[str, npt.NDArray[Any]]:
        batch = {}
        for name, array in self.inputs.items():
            axis = self.axes.get(name, 0)
            batch[name] = array[chosen.start or 0] if axis is None else np.moveaxis(array[chosen], 0, axis)
        return batch

    def first(self, count: int) -> Dataset:
        """A data set of the first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return dataclasses.replace(self, inputs=self.head(count), labels=labels, lengths=())

    def spread(self, most: int) -> Dataset:
        """At most `most` samples at equal distances, with the first and the last, since sets are often sorted."""
        return self if most >= self.samples else self._chosen(spread_evenly(self.samples, most))

    def split(self, apart: int) -> tuple[Dataset, Dataset]:
        """All samples but `apart` at equal distances, and these; all twice, if one of the two would have none."""
        if not 0 < apart < self.samples:
            return self, self
        chosen = spread_evenly(self.samples, apart, ends=False)
        return self._chosen(np.setdiff1d(np.arange(self.samples), chosen)), self._chosen(chosen)

    def _chosen(self, numbers: npt.NDArray[np.int64]) -> Dataset:
        inputs = {name: array[numbers] for name, array in self.inputs.items()}
        labels = None if self.labels is None else self.labels[numbers]
        return dataclasses.replace(self, inputs=inputs, labels=labels, lengths=())

    def digest(self) -> str:
        """A hash of the inputs."""
        total = hashlib.sha256()
        for name in sorted(self.inputs):
            array = self.inputs[name]
            axis = f"axis{self.axes[name]}" if name in self.axes else ""
            total.update(f"{name}{array.dtype}{array.shape}{axis}".encode())
            for _, (block,) in sample_blocks(array):
                total.update(block.tobytes())
        return total.hexdigest()

    def digest_with_labels(self) -> str:
        """A hash of all that an accuracy on these samples depends on: inputs, labels, and the sequences they form."""
        form = (self.alone, self.lengths, self.per_sequence, self.classes)
        total = hashlib.sha256(f"{self.digest()}{form}".encode())
        if self.labels is not None:
            total.update(f"{self.labels.dtype}{self.labels.shape}".encode())
            has_objects = self.labels.dtype.hasobject
            total.update(repr(self.labels.tolist()).encode() if has_objects else self.labels.tobytes())
        return total.hexdigest()
