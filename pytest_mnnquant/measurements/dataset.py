"""Samples and their labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


def spread_evenly(total: int, most: int, *, ends: bool = True) -> npt.NDArray[np.int64]:
    """The numbers of at most `most` of `total` items at equal distances, always the same ones; all, if not more.

    With `ends` the first and the last item are included; without, the middle of each of `most` equal parts is used.
    """
    count = min(total, most)
    if ends:
        return np.linspace(0, total - 1, count).astype(np.int64)
    return (2 * np.arange(count) + 1) * total // (2 * count)


@dataclass(frozen=True)
class Dataset:
    """Samples: one array per input, the first axis counts samples; `labels` has shape [samples, ...] or is None.

    `alone`: the model takes one sample at a time.
    """

    inputs: dict[str, npt.NDArray[Any]]
    labels: npt.NDArray[Any] | None = None
    origin: str = field(default="data", compare=False)
    alone: bool = False

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def head(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """The inputs of the first `count` samples."""
        return {name: array[:count] for name, array in self.inputs.items()}

    def batches(self, size: int) -> Iterable[dict[str, npt.NDArray[Any]]]:
        """The inputs in batches of `size` samples (of one, if the model takes single samples), in order."""
        size = 1 if self.alone else size
        for start in range(0, self.samples, size):
            yield {name: array[start : start + size] for name, array in self.inputs.items()}

    def first(self, count: int) -> Dataset:
        """A data set of the first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return dataclasses.replace(self, inputs=self.head(count), labels=labels)

    def spread(self, most: int) -> Dataset:
        """At most `most` samples at equal distances, with the first and the last, since sets are often sorted."""
        if most >= self.samples:
            return self
        chosen = spread_evenly(self.samples, most)
        inputs = {name: array[chosen] for name, array in self.inputs.items()}
        return dataclasses.replace(self, inputs=inputs, labels=None if self.labels is None else self.labels[chosen])

    def digest(self) -> str:
        """A hash of the content."""
        total = hashlib.sha256()
        for name in sorted(self.inputs):
            array = np.ascontiguousarray(self.inputs[name])
            total.update(f"{name}{array.dtype}{array.shape}".encode())
            total.update(array.tobytes())
        return total.hexdigest()
