"""Quantizations for tensors that MNN would otherwise derive by propagation, wrongly.

The params file describes the inputs and outputs of convolutions; MNN propagates these quantizations to other tensors
(`mnnfile.scale_propagation`). Five results are wrong or depend on chance, so these tensors are described in the model:

- a tensor that several scales reach has the scale that MNN visits last, by addresses: it gets its own range;
- an int8 Interp copies its input's codes without rescaling them: its output gets its input's scale (if it
  interpolates, it stays float, see `float_resizes`);
- an int8 Add with a fused ReLU clamps at code 0 instead of the zero point: its output gets zero point 0;
- the input of a slice or a mean has the range of that part: it gets its own range if that is wider;
- an int8 average pool rounds down, and has one scale for its input and for a mean with a smaller range: both are
  described, and MNN pools in float between the two scales (from 30.6 to 40.7 dB on an Inception block, from 26.7 to
  40.2 dB on a GhostNet, from 27.1 to 32.6 dB on a MobileNetV3).

MNN converts between two described tensors. Of the ways to join scales this loses least: on three PAN necks a tensor's
own range gave 47.6, 27.0 and 27.3 dB, the scale of the coarser joined tensor 47.5, 27.0 and 27.1 dB, float 47.5, 27.0
and 27.2 dB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.commands import (
    AVERAGE_POOL,
    RASTER,
    Command,
    commands,
    has_fused_relu,
    pool_kind,
    possible_commands,
)
from pytest_mnnquant.mnnfile.int8_resize import is_cubic
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant, read_model
from pytest_mnnquant.mnnfile.quants import with_quants
from pytest_mnnquant.mnnfile.scale_propagation import Outcome, outcomes, propagated
from pytest_mnnquant.quantize.calibration import HIGHEST, LOWEST, Range
from pytest_mnnquant.quantize.float_resizes import keep_resizes_float
from pytest_mnnquant.quantize.ranges import calibrate_runtime
from pytest_mnnquant.recipes.recipe import Observer
from pytest_mnnquant.runtime.options import RunOptions

Quants = Mapping[int, TensorQuant]
#: The range of a tensor in calibration; None if unknown.
RangeOf = Callable[[int], Range | None]
_WIDER: Final = 1.05
INT8: Final = "int8"
_OBSERVATIONS, _ROUNDS = 4, 2


def described_tensors(model: Model, range_of: RangeOf) -> dict[int, TensorQuant]:
    """The quantizations of all tensors that `model` describes, and of those that it must describe in addition."""
    given, forms = model.tensor_quants, possible_commands(model)
    described = dict(given)
    # MNN splits a model with loops into parts, and misreads described tensors that pass from one part to another.
    loops = [op for op in model.ops if op.kind in ("While", "If") and not op.subgraph]
    passed = {tensor for op in loops for tensor in (*op.inputs, *op.outputs)}
    for _ in range(_ROUNDS * max(len(form) for form in forms)):
        wrong = (
            statement
            for resized in (False, True)
            for steps in forms
            for statement in _wrong(steps, outcomes(steps, described, resized=resized), given, described, range_of)
        )
        contradiction = next((statement for statement in wrong if statement[0] not in passed), None)
        if contradiction is None:
            break
        described[contradiction[0]] = contradiction[1]
    return described


def interpolated_ranges(model: Model, layers: Sequence[Op], ranges: Mapping[int, Range]) -> dict[int, Range]:
    """The ranges of layers' tensors, equal before and after an Interp between two layers.

    Also if it stays float, for those who convert with the params file alone: then it runs in int8.
    """
    described_ranges, steps = dict(ranges), commands(model)
    described = {tensor for layer in layers for tensor in (layer.inputs[0], layer.outputs[0]) if tensor in ranges}
    resizes = [step for step in steps if step.kind == "Interp" and step.output in described]
    for step in sorted(resizes, key=lambda step: not is_cubic(step.op)):
        sources = propagated(steps, {tensor: _quant(described_ranges[tensor]) for tensor in described}, order=int)
        source, seen = sources.get(step.inputs[0]), described_ranges[step.output]
        if source == step.inputs[0] and is_cubic(step.op):
            described_ranges[source] = described_ranges[source].merged(seen)
        # The input may be reached from a slice with a smaller range: it gets its own range then.
        if source is not None and _holds(_quant(described_ranges[source]), seen):
            described_ranges[step.output] = described_ranges[source]
    return described_ranges


def _wrong(
    steps: Sequence[Command], ways: Sequence[Outcome], given: Quants, quants: Quants, range_of: RangeOf
) -> Iterator[tuple[int, TensorQuant]]:
    """The tensors to describe, in order. `given` are those that the params file describes."""
    makers = {step.output: step for step in steps}
    for tensor in dict.fromkeys(tensor for step in steps for tensor in (*step.inputs, step.output)):
        if tensor not in quants and len({_numbers(way, quants, tensor) for way in ways}) > 1:
            yield tensor, _own_quant(tensor, makers, ways, quants, range_of)
    way = ways[0]
    places = {step.output: place for place, step in enumerate(steps)}
    for place, step in enumerate(steps):
        if step.narrows:
            yield from _clipped(step, way, places, quants, range_of)
        if place in way.int8 and (averaged := _averaged(step, quants)) is not None:
            yield averaged, _own_quant(averaged, makers, ways, quants, range_of)
        if place in way.int8 and step.output not in given:
            described = _misread_scale(step, way, quants)
            if described is not None:
                yield step.output, described
            elif _needs_range(step, way, quants):
                yield step.output, _own_quant(step.output, makers, ways, quants, range_of)


def _misread_scale(step: Command, way: Outcome, quants: Quants) -> TensorQuant | None:
    """The quantization that the output of an int8 Interp needs; None if it has that, and for other commands."""
    source, made = quants[way.sources[step.inputs[0]]], quants[way.sources[step.output]]
    is_same = (source.scale, source.zero) == (made.scale, made.zero)
    return None if step.kind != "Interp" or is_same else source


def _needs_range(step: Command, way: Outcome, quants: Quants) -> bool:
    """Whether the output of an int8 command needs a separate range.

    A sum with a fused ReLU requires zero point 0. An output that is described as float gets codes, which MNN reads as
    floats: the float input of a resize describes so what it is copied from.
    """
    made = quants[way.sources[step.output]]
    is_clamped = has_fused_relu(step.op) and made.zero != 0 and step.output not in quants
    return is_clamped or made.data_type != INT8


def _averaged(step: Command, quants: Quants) -> int | None:
    """The tensor of an average pool that is not described; None if both are, and for other commands."""
    sides = (step.output, step.inputs[0]) if pool_kind(step.op) == AVERAGE_POOL else ()
    return next((tensor for tensor in sides if tensor not in quants), None)


def _clipped(
    step: Command, way: Outcome, places: Mapping[int, int], quants: Quants, range_of: RangeOf
) -> Iterator[tuple[int, TensorQuant]]:
    """The inputs of a slice or a mean that MNN clips to the range of its output."""
    for tensor in step.inputs:
        source = way.sources.get(tensor)
        if tensor in quants or source is None or way.sources.get(step.output) != source:
            continue
        quant = quants[source]
        seen = range_of(tensor) if places.get(tensor, -1) in way.int8 else None
        if seen is not None and not _holds(quant, seen):
            yield tensor, _quant(dataclasses.replace(seen, symmetric=quant.zero == 0))


def _own_quant(
    tensor: int, makers: Mapping[int, Command], ways: Sequence[Outcome], quants: Quants, range_of: RangeOf
) -> TensorQuant:
    """A separate quantization for a tensor: by its range, else the widest of those that reach it."""
    maker = makers.get(tensor)
    given = [] if maker is None else _int8_quants(maker.inputs, ways[:1], quants)
    if maker is not None and maker.kind == "Interp" and given:
        return given[0]
    seen = range_of(tensor)
    if seen is not None:
        return _quant(dataclasses.replace(seen, symmetric=maker is not None and has_fused_relu(maker.op)))
    return max(_int8_quants((tensor,), ways, quants) or given, key=lambda quant: quant.scale)


def _int8_quants(tensors: Sequence[int], ways: Sequence[Outcome], quants: Quants) -> list[TensorQuant]:
    """The int8 quantizations that reach tensors."""
    reached = [quants[way.sources[tensor]] for way in ways for tensor in tensors if tensor in way.sources]
    return [quant for quant in reached if quant.data_type == INT8]


def _numbers(way: Outcome, quants: Quants, tensor: int) -> tuple[float, float] | None:
    source = way.sources.get(tensor)
    return None if source is None else (quants[source].scale, quants[source].zero)


def _holds(quant: TensorQuant, seen: Range) -> bool:
    low, high = ((end - quant.zero) * quant.scale * _WIDER for end in (quant.low, quant.high))
    return low <= seen.low and seen.high <= high


def _quant(seen: Range) -> TensorQuant:
    scale, zero = seen.affine()
    return TensorQuant(scale, zero, LOWEST, HIGHEST, INT8)


def describe_tensors(
    path: Path, base: Model, known: Mapping[str, Range], data: Dataset, options: RunOptions, observer: Observer
) -> None:
    """Describe in the int8 model at `path` the tensors that MNN's propagation gets wrong; most models have none.

    Resizes that interpolate are kept float. `base` is the float model that it was made from, `known` holds ranges by
    the names of tensors; others are observed in a run of `base` on `data`. Raises `NativeFailure`.
    """
    ranges: dict[str, Range | None] = dict(known)
    model = keep_resizes_float(read_model(path))
    for _ in range(_OBSERVATIONS):
        requested = _Ranges(model, ranges)
        described = described_tensors(model, requested)
        resized = keep_resizes_float(model, described)
        if resized is model and not requested.missing:
            break
        model = resized
        ranges |= dict.fromkeys(requested.missing) | _observed(base, requested.missing, data, options, observer)
    else:
        described = described_tensors(model, _Ranges(model, ranges))
    if described != model.tensor_quants:
        path.write_bytes(with_quants(path.read_bytes(), described))


class _Ranges:
    """The ranges of tensors; a view has those of the tensors whose values it holds. `missing` collects unknown ones."""

    def __init__(self, model: Model, ranges: Mapping[str, Range | None]) -> None:
        self._names, self._ranges = model.tensor_names, ranges
        rasters = (step for form in possible_commands(model) for step in form if step.kind == RASTER)
        self._gathered = {step.output: step.inputs for step in rasters}
        self.missing: set[str] = set()

    def __call__(self, tensor: int) -> Range | None:
        merged: Range | None = None
        for origin in self._origins(tensor):
            name = self._names[origin]
            if name not in self._ranges:
                self.missing.add(name)
            part = self._ranges.get(name)
            if part is None:
                return None
            merged = part if merged is None else merged.merged(part)
        return None if merged is None else dataclasses.replace(merged, symmetric=False)

    def _origins(self, tensor: int) -> Iterator[int]:
        for origin in self._gathered.get(tensor, ()):
            yield from self._origins(origin)
        if tensor not in self._gathered:
            yield tensor


def _observed(base: Model, names: set[str], data: Dataset, options: RunOptions, observer: Observer) -> dict[str, Range]:
    """The ranges of tensors of the float model, by name; ranges of inputs come from the data."""
    grids = {
        name: Range(float(array.min()), float(array.max())) for name, array in data.inputs.items() if name in names
    }
    ops = tuple(op for op in base.ops if op.outputs and op.output_names[0] in names and op.inputs and not op.subgraph)
    if ops:
        # With one convolution, since a run that observes no operator fails.
        seen = calibrate_runtime(base, (*ops, *base.convolutions[:1]), data, options, observer).ranges
        grids |= {op.output_names[0]: seen[op.outputs[0]] for op in ops if op.outputs[0] in seen}
    return grids
