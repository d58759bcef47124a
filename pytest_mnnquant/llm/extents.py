"""Runs of bytes in a file: gaps between them, overlaps, what lies outside of the file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """`length` bytes from `offset` on; `owner` is the layer they belong to, `kind` what they hold."""

    offset: int
    length: int
    owner: str = ""
    kind: str = ""

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length


NOWHERE: Final = Extent(0, 0)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two runs that share bytes and are not the same run."""

    first: Extent
    second: Extent

    @property
    def length(self) -> int:
        """Number of shared bytes."""
        return min(self.first.end, self.second.end) - self.second.offset


@dataclass(frozen=True)
class FileMap:
    """Where the bytes of one file belong. `size` is the length of the file in bytes, 0 if it is missing.

    `missing` counts the bytes that runs need and the file does not have. Gaps are runs that nothing points at; the last
    of them may reach the end of the file.
    """

    file: str
    size: int
    extents: tuple[Extent, ...]
    gaps: tuple[Extent, ...]
    overlaps: tuple[Overlap, ...]
    missing: int

    @property
    def unused(self) -> int:
        """Number of bytes that nothing points at."""
        return sum(gap.length for gap in self.gaps)


def map_file(file: str, size: int, extents: Iterable[Extent]) -> FileMap:
    """Put the runs of one file in order, and find what is between and beyond them."""
    runs = sorted({(run.offset, run.length): run for run in extents if run.length > 0}.values())
    gaps, overlaps = [], []
    last: Extent | None = None
    end = 0
    for run in runs:
        if run.offset > end:
            gaps.append(Extent(end, min(run.offset, size) - end))
        elif last is not None and run.offset < last.end:
            overlaps.append(Overlap(last, run))
        if run.end > end:
            end, last = run.end, run
    if size > end:
        gaps.append(Extent(end, size - end))
    below = [max(0, -run.offset) for run in runs]
    missing = max(0, end - size, *below)
    return FileMap(file, size, tuple(runs), tuple(gap for gap in gaps if gap.length > 0), tuple(overlaps), missing)
