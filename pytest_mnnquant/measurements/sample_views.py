"""The samples on which a variant is worst, as a person looks at them: small pictures, boxes and curves.

They are small, since xdist workers send them with the records: a picture has at most 128 pixels on a side.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_mnnquant.findings.dataclass_json import OPTIONAL


@dataclass(frozen=True, slots=True)
class Box:
    """A detected object. Its place and size are shares of the picture's width and height."""

    left: float
    top: float
    width: float
    height: float
    label: int
    score: float


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: pixels as base64 of a PNG file with the objects drawn over it, or curves from `low` to `high`.

    `note` says what the colours or curves are.
    """

    title: str
    png: str = ""
    width: int = 0
    height: int = 0
    boxes: tuple[Box, ...] = field(default=(), metadata=OPTIONAL)
    curves: tuple[tuple[float, ...], ...] = field(default=(), metadata=OPTIONAL)
    low: float = 0.0
    high: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class SampleView:
    """One sample, counted from 0: panels side by side of one output. `error` says how bad it is, by which measure."""

    sample: int
    output: str
    error: str
    panels: tuple[Panel, ...]
