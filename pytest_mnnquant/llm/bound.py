"""What of an export belongs to what of its source."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_mnnquant.llm.graph import StoredVector
from pytest_mnnquant.llm.matrix import StoredMatrix


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Rows `start` to `stop` of a tensor of the source. `stem` is its name without `.weight`."""

    stem: str
    start: int
    stop: int

    @property
    def weight(self) -> str:
        """The name of its weights."""
        return f"{self.stem}.weight"

    @property
    def bias(self) -> str:
        """The name of its bias."""
        return f"{self.stem}.bias"


@dataclass(frozen=True, slots=True)
class BoundMatrix:
    """A stored matrix and the rows of the source that it is made of."""

    stored: StoredMatrix
    source: SourceRows


@dataclass(frozen=True)
class BoundVector:
    """A stored vector (norm) and the name of its tensor in the source."""

    stored: StoredVector
    source: str
