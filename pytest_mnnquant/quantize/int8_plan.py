"""A float model and the ranges to quantize its tensors by: calibrated in PyTorch or in MNN, and converted to int8."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.commands import layers_known_ahead
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import LayerParams, Params, WeightParams
from pytest_mnnquant.quantize.calibration import Range, make_params, widen_ranges
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.described_tensors import describe_tensors, interpolated_ranges
from pytest_mnnquant.quantize.job import Job, Transformation
from pytest_mnnquant.quantize.propagation import Propagated, find_propagated, ops_to_observe
from pytest_mnnquant.quantize.ranges import Calibrated, calibrate_runtime
from pytest_mnnquant.quantize.re_export import re_export_float
from pytest_mnnquant.quantize.weight_only import float_entries
from pytest_mnnquant.recipes.mnn_support import int8_layers, is_skipped
from pytest_mnnquant.recipes.recipe import Int8Recipe, Observer
from pytest_mnnquant.sources.spec import DataError, SourceError


@dataclass(frozen=True)
class Plan:
    """A float model and the ranges to quantize its tensors by.

    `ranges` are by tensor index, and differ from those of `calibrated` if MNN propagates a quantization. `modules`
    gives the PyTorch module of each layer. `loop_ranges` are those of layers in the bodies of loops, by name.
    `transformations` changed the weights and biases of the float model.
    """

    model: Model
    calibrated: Calibrated
    ranges: dict[int, Range]
    modules: dict[str, str] = field(default_factory=dict)
    loop_ranges: dict[str, tuple[Range, Range]] = field(default_factory=dict)
    transformations: tuple[Transformation, ...] = ()


def calibrate(job: Job, observer: Observer, data: Dataset, folder: Path) -> Plan:
    """Calibrate in PyTorch if the source is a PyTorch model, else in MNN's float run.

    Raises `DataError` for values that are NaN or infinite.
    """
    calibrate_source = _calibrate_in_mnn if job.source.network is None else _calibrate_in_torch
    plan = calibrate_source(job, observer, data, folder)
    _require_finite(job, plan)
    return plan


def _calibrate_in_mnn(job: Job, observer: Observer, data: Dataset, _folder: Path) -> Plan:
    model = job.source.model
    layers = int8_layers(model)
    links = find_propagated(model, layers)
    calibrated = calibrate_runtime(model, ops_to_observe(model, layers, links), data, job.options, observer)
    return Plan(model, calibrated, plan_ranges(model, layers, links, calibrated))


def _calibrate_in_torch(job: Job, observer: Observer, data: Dataset, folder: Path) -> Plan:
    from pytest_mnnquant.quantize.ranges import calibrate_torch
    from pytest_mnnquant.quantize.recurrent import recurrent_layers, recurrent_ranges
    from pytest_mnnquant.quantize.tensor_binding import bind_tensors
    from pytest_mnnquant.quantize.unfolded_batchnorm import find_unfolded, replace_unfolded

    source, choices = job.source, job.choices
    network: Any = source.network
    model, unfolded = source.model, find_unfolded(network, source.model, data, job.options)

    def export(exported: Any) -> Model:
        plain, label = replace_unfolded(exported, unfolded), job.recipe.label(job.mode)
        return re_export_float(plain, source, source.data or data, folder, choices, label)

    if unfolded:
        model = export(network)
    layers = int8_layers(model)
    links = find_propagated(model, layers)
    binding = bind_tensors(network, model, ops_to_observe(model, layers, links), data, job.options)
    calibrated = calibrate_torch(binding, data, job.mode or "eval", observer, job.options)
    if calibrated.drift > 0:
        # A pipeline that calibrates in train mode ships the model with the statistics that calibration left.
        drifted = export(calibrated.network)
        if drifted.tensor_names != model.tensor_names:
            raise SourceError(f"{source.spec.text}: calibration in train mode changed the graph of the model's export")
        model = drifted
    recurrent, modules = recurrent_layers(network, model), dict(binding.modules)
    modules |= {layer.op.name: layer.module for layer in recurrent}
    loop_ranges = {}
    if recurrent and calibrated.network is not None:
        loop_ranges = recurrent_ranges(calibrated.network, model, recurrent, data)
    return Plan(model, calibrated, plan_ranges(model, layers, links, calibrated), modules, loop_ranges)


def plan_ranges(
    model: Model, layers: tuple[Op, ...], links: tuple[Propagated, ...], calibrated: Calibrated
) -> dict[int, Range]:
    """The ranges for the params file, from calibrated ones."""
    return interpolated_ranges(model, layers, widen_ranges(calibrated.ranges, links))


def _require_finite(job: Job, plan: Plan) -> None:
    for tensor, rows in plan.calibrated.batches.items():
        finite = np.isfinite(rows).all(1)
        if not finite.all():
            name, batch = plan.model.tensor_names[tensor], int(np.argmin(finite))
            raise DataError(
                f"{job.source.spec.text}: tensor {name!r} is NaN or infinite in batch {batch} of the calibration data"
            )


def _other_recipe(model: Model) -> str:
    """A recipe that quantizes something: MNN stores tables in 16 bits at least."""
    return "w8" if any(op.is_convolution for op in model.layers) else "fp16"


def params_of(job: Job, plan: Plan) -> Params:
    """The params file: layers to run in int8, and layers to keep float if the recipe quantizes all other weights."""

    def is_quantized(op: Op) -> bool:
        return not is_skipped(op, job.skip, plan.modules.get(op.name, ""))

    # A layer without ranges never ran: it stays float, and the coverage check reports it.
    layers = tuple(
        op for op in int8_layers(plan.model) if is_quantized(op) and {op.inputs[0], op.outputs[0]} <= plan.ranges.keys()
    )
    if not layers and job.recipe.fill is None:
        raise SourceError(
            f"{job.recipe.name}: no layer to quantize: MNN runs none of them in int8, or --mnn-skip-layer matches all; "
            f"use another recipe (--mnn-recipe={_other_recipe(plan.model)})"
        )
    loops = {op.name for op in plan.model.layers if op.name in plan.loop_ranges and is_quantized(op)}
    loop_ranges = {name: ranges for name, ranges in plan.loop_ranges.items() if name in loops}
    params = make_params(plan.model, layers, plan.ranges, loop_ranges)
    if job.recipe.fill is None:
        known = [op for op in _without_scales(plan.model, layers) if is_quantized(op)]
        others = tuple(LayerParams(WeightParams(op.name), op_name=op.name) for op in known)
    else:
        others = float_entries(plan.model, job.skip, plan.modules)
    return Params((*params.layers, *others), params.uuid)


def _without_scales(model: Model, layers: tuple[Op, ...]) -> list[Op]:
    """The other layers that MNN computes before a run: they have no ranges and need none, only weights in 8 bits."""
    ahead = layers_known_ahead(model)
    return [op for op in model.convolutions if op.name in ahead and op not in layers]


def convert_plan(
    job: Job, recipe: Int8Recipe, plan: Plan, model: Model, path: Path, arguments: tuple[str, ...]
) -> None:
    """Quantize `model`, whose tensors are those of the plan's."""
    assert job.data is not None
    convert_twice(model.path, path, arguments, timeout=job.choices.timeout)
    names = plan.model.tensor_names
    known = {names[tensor]: seen for tensor, seen in plan.calibrated.ranges.items()}
    describe_tensors(path, plan.model, known, job.data, job.options, recipe.observer)
