"""Operators that MNN computes wrongly in int8, because of the quantizations that it propagates to their tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pytest_mnnquant.mnnfile.commands import has_fused_relu, possible_commands
from pytest_mnnquant.mnnfile.int8_resize import WrongResize, wrong_resizes
from pytest_mnnquant.mnnfile.model import Model, TensorQuant
from pytest_mnnquant.mnnfile.scale_propagation import possible_outcomes

# Differences of a scale and of a zero point up to this are rounding.
_SAME_SCALE: Final = 0.05
_SAME_ZERO: Final = 2


@dataclass(frozen=True, slots=True)
class MisreadInterp:
    """An Interp that copies codes to a tensor with another scale: its output values are multiplied by `ratio`."""

    name: str
    ratio: float


@dataclass(frozen=True)
class Int8Faults:
    """Operators by the fault of their int8 form, in the order of the file.

    `clamping`: sums with a fused ReLU, whose int8 form clamps at code 0, and a zero point other than 0. `scales`: Scale
    operators, which ignore their input (see `quantize.unfolded_batchnorm`). `resizes`: bilinear Interps that aarch64
    computes wrongly.
    """

    clamping: tuple[str, ...] = ()
    interps: tuple[MisreadInterp, ...] = ()
    scales: tuple[str, ...] = ()
    resizes: tuple[WrongResize, ...] = ()

    @property
    def operators(self) -> frozenset[str]:
        """The names of all of them, except `resizes`, which are wrong on aarch64 only."""
        return frozenset((*self.clamping, *self.scales, *(interp.name for interp in self.interps)))


NO_FAULTS: Final = Int8Faults()


def int8_faults(
    model: Model, ran: Collection[str], widths: Mapping[str, tuple[int, int]] = MappingProxyType({})
) -> Int8Faults:
    """The faults among the operators that `ran` in int8, by name. `widths`: of resizes among them, see `TracedOp`."""
    if not model.tensor_quants or not ran:
        return NO_FAULTS
    clamping: dict[str, None] = {}
    interps: dict[str, MisreadInterp] = {}
    for kind, name, given, made in _int8_operators(model, ran):
        if kind == "BinaryOp" and made.zero != 0:
            clamping[name] = None
        elif kind == "Interp" and _differs(given, made):
            interps.setdefault(name, MisreadInterp(name, made.scale / given.scale))
    scales = tuple(op.name for op in model.ops if op.kind == "Scale" and op.name in ran)
    return Int8Faults(tuple(clamping), tuple(interps.values()), scales, wrong_resizes(model, widths))


def _int8_operators(model: Model, ran: Collection[str]) -> Iterator[tuple[str, str, TensorQuant, TensorQuant]]:
    """(kind, name, quantization of the input, of the output) of sums with a ReLU, and of Interps."""
    quants = model.tensor_quants
    for steps in possible_commands(model):
        for way in possible_outcomes(steps, quants):
            for place in sorted(way.int8):
                step = steps[place]
                if step.op.name in ran and (step.kind == "Interp" or has_fused_relu(step.op)):
                    given, made = (quants[way.sources[tensor]] for tensor in (step.inputs[0], step.output))
                    yield step.kind, step.op.name, given, made


def _differs(given: TensorQuant, made: TensorQuant) -> bool:
    return abs(given.scale - made.scale) > _SAME_SCALE * given.scale or abs(given.zero - made.zero) > _SAME_ZERO
