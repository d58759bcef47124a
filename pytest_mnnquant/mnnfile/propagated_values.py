"""Whether two ways of propagating quantization compute the same values.

A tensor's value is an expression over the model's inputs: the operators that computed it, and the codes to which it was
rounded. Operators that only move values, take a maximum or interpolate are skipped: rounding before them and after
them is the same (or differs by the rounding of a mean).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pytest_mnnquant.mnnfile.commands import RASTER, Command
from pytest_mnnquant.mnnfile.model import TensorQuant
from pytest_mnnquant.mnnfile.scale_propagation import Outcome

SEEN_THROUGH: Final = frozenset({RASTER, "Pooling", "Interp", "ReLU", "ReLU6"})
#: Scales that differ by less are equal: tools that process a tensor twice give it two scales that differ by 0.1 %.
SAME_SCALE: Final = 0.02

Grid = tuple[float, float]


class Values:
    """Expressions, each stored once, so that equal ones have the same number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}
        self._nodes: list[tuple[object, ...]] = []
        self._rounded: dict[tuple[int, Grid], int] = {}
        self._grids: list[Grid] = []

    def number(self, *node: object) -> int:
        """The number of an expression."""
        if node not in self._numbers:
            self._numbers[node] = len(self._nodes)
            self._nodes.append(node)
        return self._numbers[node]

    def grid(self, quant: TensorQuant) -> Grid:
        """Scale and zero point; nearly equal ones get the same number."""
        for scale, zero in self._grids:
            if abs(scale - quant.scale) <= SAME_SCALE * abs(scale) and abs(zero - quant.zero) <= 1:
                return scale, zero
        self._grids.append((quant.scale, quant.zero))
        return self._grids[-1]

    def rounded(self, value: int, grid: Grid) -> int:
        """A value rounded to codes."""
        key = (value, grid)
        if key not in self._rounded:
            node = self._nodes[value]
            if node[0] == "code" and node[1] == grid:
                self._rounded[key] = value
            elif node[0] == "view":
                inner = (self.rounded(int(str(number)), grid) for number in node[2:])
                self._rounded[key] = self.number("view", node[1], *inner)
            else:
                self._rounded[key] = self.number("code", grid, value)
        return self._rounded[key]


def computed(
    commands: Sequence[Command], quants: Mapping[int, TensorQuant], outcome: Outcome, values: Values
) -> dict[int, int]:
    """The value of each tensor, as its number in `values`."""
    known: dict[int, int] = {}
    for place, command in enumerate(commands):
        given = [known.setdefault(tensor, values.number("given", tensor)) for tensor in command.inputs]
        seen_through = command.kind in SEEN_THROUGH
        if place not in outcome.int8:
            known[command.output] = values.number("view" if seen_through else "made", place, *given)
            continue
        grids = [values.grid(quants[outcome.sources[tensor]]) for tensor in command.inputs]
        made = values.grid(quants[outcome.sources[command.output]])
        codes = [values.rounded(value, grid) for value, grid in zip(given, grids, strict=True)]
        if command.kind == "Interp" and grids[0] != made:
            known[command.output] = values.number("misread", place, grids[0], made, *codes)
        elif seen_through:
            known[command.output] = values.number("view", place, *codes)
        else:
            known[command.output] = values.rounded(values.number("made", place, *codes), made)
    return known
