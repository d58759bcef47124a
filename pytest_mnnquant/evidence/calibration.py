"""Gathers the evidence of the calibration check: the ranges of calibration, and the scales on held-out data."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy.typing as npt

from pytest_mnnquant.checks.calibration.check import CalibrationEvidence, samples_used
from pytest_mnnquant.checks.calibration.clipping import HeldOut, is_scale
from pytest_mnnquant.checks.calibration.ranges import LEAST, Batches
from pytest_mnnquant.checks.calibration.samples import MOST_SAMPLES
from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.measurements.calibration import Record
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant
from pytest_mnnquant.mnnfile.reached_layers import layers_of_inputs
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.inference import Grid, code_losses, tensor_ranges
from pytest_mnnquant.runtime.options import RunOptions

# Enough to see whether ranges converge, if another tool calibrated and recorded none.
_MOST_OBSERVED: Final = 320
Pair = tuple[Op, Op]


def calibration_evidence(
    source: Prepared, variant: Variant, rows: tuple[LayerRow, ...], timeout: float
) -> CalibrationEvidence:
    """Run the float model on held-out data, and on few calibration samples one by one."""
    pairs = [(row.layer, row.stored) for row in rows if row.stored and row.stored.weights[0].full_int8]
    options = source.options(timeout)
    record = variant.record
    quants = variant.model.tensor_quants  # A layer of scale 0, from an input of zeros, does not count as int8.
    coded = [row.layer for row in rows if row.stored and row.stored.inputs[:1] and row.stored.inputs[0] in quants]
    held_out = source.evaluation.spread(MOST_SAMPLES).inputs if source.evaluation else None
    return CalibrationEvidence(
        mode=variant.mode,
        record=record,
        calibration=source.calibration,
        evaluation=source.evaluation,
        floats=tuple(item.name for item in source.model.inputs if item.data_type == "float"),
        batches=_batches(source, variant.base, [layer for layer, _ in pairs], record, options),
        tensors=_tensors(variant, pairs, held_out, options),
        quantized_inputs=layers_of_inputs(variant.base, coded),
        output_shapes={name: array.shape[1:] for name, array in source.sample_run.outputs.items()}
        if source.sample_run
        else {},
    )


def _batches(
    source: Prepared, base: Model, layers: list[Op], record: Record | None, options: RunOptions
) -> dict[str, Batches]:
    data = source.calibration
    samples = data.samples if data and record is None else samples_used(record, data) or 0
    if record and record.batches and samples >= LEAST:
        return dict(record.batches)
    if data is None or not layers or not samples:
        return {}
    observed = data.head(min(samples, _MOST_OBSERVED))
    options = dataclasses.replace(options, batched=options.batched and samples >= LEAST)
    ranges = tensor_ranges(base, layers, observed, options)
    return {
        base.tensor_names[tensor]: ranges[:, number, side]
        for number, op in enumerate(layers)
        for side, tensor in enumerate((op.inputs[0], op.outputs[0]))
    }


def _tensors(
    variant: Variant, pairs: list[Pair], held_out: dict[str, npt.NDArray[Any]] | None, options: RunOptions
) -> tuple[HeldOut, ...]:
    quants = variant.model.tensor_quants
    # Each tensor once: the output of a layer is often the input of the next.
    quantized: dict[int, tuple[int, int, TensorQuant]] = {}
    for number, (layer, stored) in enumerate(pairs):
        for side, (tensor, index) in enumerate(
            ((layer.inputs[0], stored.inputs[0]), (layer.outputs[0], stored.outputs[0]))
        ):
            if index in quants:
                quantized.setdefault(tensor, (number, side, quants[index]))
    grids: list[list[Grid | None]] = [[None, None] for _ in pairs]
    for number, side, quant in quantized.values():
        grids[number][side] = _grid(quant)
    layers = [layer for layer, _ in pairs]
    losses = None
    if held_out and quantized:
        losses = code_losses(variant.base, layers, [(first, second) for first, second in grids], held_out, options)
    tensors = []
    for tensor, (number, side, quant) in quantized.items():
        grid, name = _grid(quant), variant.base.tensor_names[tensor]
        lost = losses[number][side] if losses else None
        tensors.append(HeldOut(layers[number].name, name, quant.scale, grid.low, grid.high, lost))
    return tuple(tensors)


def _grid(quant: TensorQuant) -> Grid:
    """The values that the codes represent; only 0 if the scale is invalid."""
    if not is_scale(quant.scale):
        return Grid(1.0, 0.0, 0.0)
    low, high = ((code - quant.zero) * quant.scale for code in (quant.low, quant.high))
    return Grid(quant.scale, low, high)
