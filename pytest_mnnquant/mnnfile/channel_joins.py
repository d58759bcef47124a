"""Channels that need one factor, joined into classes (union-find)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

Classes = npt.NDArray[np.int64]
#: The class of channels whose factor is 1.
FIXED: Final = 0


class ChannelJoins:
    """Channels by number; `root` gives the class of each."""

    def __init__(self) -> None:
        self._parents = [FIXED]

    def new(self, count: int) -> Classes:
        """Channels that are joined with no other."""
        start = len(self._parents)
        self._parents += range(start, start + count)
        return np.arange(start, start + count)

    def root(self, item: int) -> int:
        """The class of a channel."""
        while self._parents[item] != item:
            self._parents[item] = self._parents[self._parents[item]]
            item = self._parents[item]
        return item

    def join(self, first: Classes, second: Classes) -> None:
        """Give the channels of both one class each, in their order."""
        for channel, other in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self.root(channel), self.root(other)))
            self._parents[high] = low  # So FIXED stays the root of its class.

    def fix(self, tensors: Iterable[Classes | None]) -> None:
        """Give all channels the factor 1."""
        for classes in tensors:
            if classes is not None:
                self.join(np.zeros_like(classes), classes)

    def is_fixed(self, classes: Classes) -> bool:
        """Whether all channels have the factor 1."""
        return all(self.root(int(item)) == FIXED for item in classes)
