"""Bilinear resizes whose int8 form is wrong on aarch64, from the file and the widths that ran.

MNN 3.6.1 interpolates along a row with the two factors of a column as bytes, 128 standing for 1
(source/backend/cpu/arm/arm64/MNNBilinearSampleC8.S). Two things are wrong there:

- a column that lies on a column of the input has a factor of 1, and 128 as a signed byte is -128: its values get the
  opposite sign;
- columns after the last multiple of 4 take the lowest byte of the factor's float number, usually 0: they are 0.

x86 computes both right. The other columns are rounded down on aarch64, to the nearest code on x86. Nearest and bicubic
resizes are equal on both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import Model, Op

# Slots of MNN's Interp.
_TYPE, _ALIGN_CORNERS, _HALF_PIXELS, _MODE = 4, 5, 6, 10
_NEAREST, _BILINEAR, _CUBIC, _ROUNDED_NEAREST = 1, 2, 3, 4
# Coordinate transformations, by number in MNN's schema.
_NOT_SET, _ALIGNED, _HALF, _PYTORCH_HALF, _ASYMMETRIC, _TENSORFLOW_HALF = range(6)
#: The kernel's columns per step, and the number that stands for a factor of 1.
_STEP, _UNIT = 4, 128


@dataclass(frozen=True, slots=True)
class WrongResize:
    """A bilinear Interp of which aarch64 computes `columns` of `width` output columns wrongly in int8."""

    name: str
    columns: int
    width: int


def is_interpolating(op: Op) -> bool:
    """Whether this is an Interp that computes values between those of its input; a nearest one copies them."""
    if op.kind != "Interp" or op.parameters is None:
        return False
    return op.parameters.scalar(_TYPE, "i32") not in (_NEAREST, _ROUNDED_NEAREST)


def is_cubic(op: Op) -> bool:
    """Whether this is a bicubic Interp, whose output may span more than its input."""
    return op.kind == "Interp" and op.parameters is not None and op.parameters.scalar(_TYPE, "i32") == _CUBIC


def wrong_resizes(model: Model, widths: Mapping[str, tuple[int, int]]) -> tuple[WrongResize, ...]:
    """The wrong ones among the Interps that ran in int8. `widths`: of input and output, by operator."""
    return tuple(_wrong_resizes(model, widths))


def _wrong_resizes(model: Model, widths: Mapping[str, tuple[int, int]]) -> Iterator[WrongResize]:
    for op in model.ops:
        if op.kind != "Interp" or op.name not in widths or op.parameters is None:
            continue
        given, made = widths[op.name]
        line = _positions(op.parameters, given, made)
        if op.parameters.scalar(_TYPE, "i32") == _BILINEAR and line is not None:
            columns = sum(_is_wrong(x, made, *line) for x in range(made))
            if columns:
                yield WrongResize(op.name, columns, made)


def _positions(interp: Table, given: int, made: int) -> tuple[float, float] | None:
    """Scale and offset of the output columns' positions in the input; None for transformations that are not known."""
    mode = int(interp.scalar(_MODE, "i8"))
    if mode == _NOT_SET:
        half, aligned = interp.scalar(_HALF_PIXELS, "u8"), interp.scalar(_ALIGN_CORNERS, "u8")
        mode = _HALF if half else _ALIGNED if aligned else _ASYMMETRIC
    scale = given / made
    if mode == _ALIGNED or (mode == _PYTORCH_HALF and made == 1):
        return ((given - 1) / (made - 1) if made > 1 else 0.0), 0.0
    offsets = {_HALF: 0.5 * scale - 0.5, _PYTORCH_HALF: 0.5 * scale - 0.5, _TENSORFLOW_HALF: 0.5 * scale}
    return (scale, offsets.get(mode, 0.0)) if mode <= _TENSORFLOW_HALF else None


def _is_wrong(column: int, width: int, scale: float, offset: float) -> bool:
    position = column * scale + offset
    factor = position - math.floor(position)
    return column >= width - width % _STEP or max(factor, 1 - factor) * _UNIT >= _UNIT - 0.5
