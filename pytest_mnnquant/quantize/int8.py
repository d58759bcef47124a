"""Quantizes to int8 with calibrated ranges: in PyTorch if the source is a PyTorch model, else in MNN's float run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.measurements.calibration import Record
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.entries import bind_by_name
from pytest_mnnquant.mnnfile.model import Model, Op, read_model
from pytest_mnnquant.mnnfile.params import Params
from pytest_mnnquant.mnnfile.rewriting import with_values
from pytest_mnnquant.mnnfile.storage import Floats
from pytest_mnnquant.quantize.bias_correction import corrected_biases
from pytest_mnnquant.quantize.calibration import Range, make_params, save_params, widen_ranges
from pytest_mnnquant.quantize.conversion_proof import PROOF_SAMPLES, output_error
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.described_tensors import describe_tensors, interpolated_ranges
from pytest_mnnquant.quantize.equalization import equalize
from pytest_mnnquant.quantize.job import FLOAT_NAME, MODEL_NAME, PARAMS_NAME, Job, QuantizerOutput, Transformation
from pytest_mnnquant.quantize.observers import label_of
from pytest_mnnquant.quantize.propagation import Propagated, find_propagated, ops_to_observe
from pytest_mnnquant.quantize.ranges import Calibrated, calibrate_runtime
from pytest_mnnquant.quantize.re_export import re_export_float
from pytest_mnnquant.quantize.record import save_record
from pytest_mnnquant.quantize.weight_only import float_entries
from pytest_mnnquant.quantize.weight_rounding import rounded_by_output
from pytest_mnnquant.recipes.mnn_support import int8_layers, is_skipped
from pytest_mnnquant.recipes.recipe import Int8Recipe, Observer
from pytest_mnnquant.runtime.inference import BATCH
from pytest_mnnquant.sources.spec import DataError, SourceError

#: A float model that was exported again for a variant, if it is rewritten afterwards.
_EXPORTED_NAME: Final = "exported.mnn"
#: The int8 model that is made from rewritten weights and biases.
_CANDIDATE_NAME: Final = "candidate.mnn"


@dataclass(frozen=True)
class _Plan:
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


def quantize_int8(job: Job, recipe: Int8Recipe, folder: Path) -> QuantizerOutput:
    """Calibrate all layers that MNN can run in int8, and convert with the resulting params file.

    Raises `DataError` for values that are NaN or infinite, and `SourceError` if no layer can be quantized.
    """
    assert job.data is not None  # `make_variant` refuses a recipe whose data are missing.
    calibrate = _calibrate_in_mnn if job.source.network is None else _calibrate_in_torch
    plan = calibrate(job, recipe.observer, job.data, folder)
    _require_finite(job, plan)
    if recipe.equalized:
        plan = _equalized(job, recipe, plan, job.data, folder)
    params = _params_of(job, plan)
    path = save_params(params, folder / PARAMS_NAME)
    flags = ("--weightQuantBits", str(recipe.fill)) if recipe.fill is not None else ()
    # From the float .mnn, not from ONNX: MNN loses the weights of a Linear with 65,536 or more of them from ONNX.
    arguments = ("--compressionParamsFile", str(path), *flags)
    _convert(job, recipe, plan, plan.model, folder / MODEL_NAME, arguments)
    if recipe.corrected or recipe.rounded:
        plan = _improved(job, recipe, plan, params, folder, arguments)
    save_record(_record(job, recipe.observer, plan, job.data), folder)
    return QuantizerOutput(
        params=PARAMS_NAME,
        drift=plan.calibrated.drift,
        modules=plan.modules,
        transformations=[dataclasses.asdict(item) for item in plan.transformations],
        arguments=["mnnconvert", "-f", "MNN", "--compressionParamsFile", PARAMS_NAME, *flags],
    )


def _convert(job: Job, recipe: Int8Recipe, plan: _Plan, model: Model, path: Path, arguments: tuple[str, ...]) -> None:
    """Quantize `model`, whose tensors are those of the plan's."""
    assert job.data is not None
    convert_twice(model.path, path, arguments, timeout=job.choices.timeout)
    names = plan.model.tensor_names
    known = {names[tensor]: seen for tensor, seen in plan.calibrated.ranges.items()}
    describe_tensors(path, plan.model, known, job.data, job.options, recipe.observer)


def _improved(
    job: Job, recipe: Int8Recipe, plan: _Plan, params: Params, folder: Path, arguments: tuple[str, ...]
) -> _Plan:
    """Round weights and correct biases of the int8 model in `folder`, if that brings its outputs closer to the float's.

    Each of the two is used only if it helps; the biases are those for the weights that are used.
    """
    assert job.data is not None
    entries = {op.name: entry for entry, op in bind_by_name(params, plan.model)[0] if entry.output is not None}
    samples, weights = job.data.spread(PROOF_SAMPLES).inputs, dict[str, Floats]()
    error, done = output_error(plan.model, read_model(folder / MODEL_NAME), samples, job.options), plan.transformations
    for suffix in (*("rounded",) * recipe.rounded, *("corrected",) * recipe.corrected):
        shifts: dict[str, Floats] = {}
        if suffix == "rounded":
            changed = candidate = rounded_by_output(plan.model, entries, job.data, job.options)
        else:
            candidate = weights
            changed = shifts = corrected_biases(plan.model, entries, job.data, job.options, weights)
        rewritten, path = folder / f"{suffix}.mnn", folder / _CANDIDATE_NAME
        rewritten.write_bytes(with_values(plan.model, candidate, shifts))
        if changed:
            _convert(job, recipe, plan, read_model(rewritten), path, arguments)
        made = output_error(plan.model, read_model(path), samples, job.options) if changed else math.inf
        is_used = made < error
        if is_used:
            path.replace(folder / MODEL_NAME)
            error, weights = made, candidate
        done = (*done, Transformation(suffix, tuple(changed), bool(changed) and not is_used))
    return dataclasses.replace(plan, transformations=done)


def _calibrate_in_mnn(job: Job, observer: Observer, data: Dataset, _folder: Path) -> _Plan:
    model = job.source.model
    layers = int8_layers(model)
    links = find_propagated(model, layers)
    calibrated = calibrate_runtime(model, ops_to_observe(layers, links), data, job.options, observer)
    return _Plan(model, calibrated, _ranges(model, layers, links, calibrated))


def _calibrate_in_torch(job: Job, observer: Observer, data: Dataset, folder: Path) -> _Plan:
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
    binding = bind_tensors(network, model, ops_to_observe(layers, links), data, job.options)
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
    return _Plan(model, calibrated, _ranges(model, layers, links, calibrated), modules, loop_ranges)


def _equalized(job: Job, recipe: Int8Recipe, plan: _Plan, data: Dataset, folder: Path) -> _Plan:
    """The plan with an equalized float model, whose ranges are those of MNN's float run: no PyTorch value has them."""
    if plan.model.path == folder / FLOAT_NAME:  # The float model was exported again for this variant.
        plan = dataclasses.replace(plan, model=read_model(plan.model.path.rename(folder / _EXPORTED_NAME)))
    made = equalize(plan.model, data, job.options, folder / FLOAT_NAME)
    if made.model is plan.model:
        return _restored(plan, Transformation("equalized", made.layers, made.is_refused), folder)
    layers = int8_layers(made.model)
    links = find_propagated(made.model, layers)
    seen = calibrate_runtime(made.model, ops_to_observe(layers, links), data, job.options, recipe.observer)
    calibrated = dataclasses.replace(plan.calibrated, ranges=seen.ranges, batches=seen.batches)
    ranges, done = _ranges(made.model, layers, links, calibrated), (Transformation("equalized", made.layers),)
    equalized = dataclasses.replace(plan, model=made.model, calibrated=calibrated, ranges=ranges, transformations=done)
    before, after = (_error(job, recipe, item, folder) for item in (plan, equalized))
    if after < before:
        return equalized
    return _restored(plan, Transformation("equalized", made.layers, is_refused=True), folder)


def _restored(plan: _Plan, done: Transformation, folder: Path) -> _Plan:
    """The plan with its float model back in its place, after a transformation that was not used."""
    (folder / FLOAT_NAME).unlink(missing_ok=True)
    model = plan.model
    if model.path == folder / _EXPORTED_NAME:
        model = read_model(model.path.rename(folder / FLOAT_NAME))
    return dataclasses.replace(plan, model=model, transformations=(done,))


def _error(job: Job, recipe: Int8Recipe, plan: _Plan, folder: Path) -> float:
    """The error of the outputs of a plan's int8 model on some of the calibration data."""
    assert job.data is not None
    path = save_params(_params_of(job, plan), folder / PARAMS_NAME)
    _convert(job, recipe, plan, plan.model, folder / _CANDIDATE_NAME, ("--compressionParamsFile", str(path)))
    samples = job.data.spread(PROOF_SAMPLES).inputs
    return output_error(plan.model, read_model(folder / _CANDIDATE_NAME), samples, job.options)


def _ranges(
    model: Model, layers: tuple[Op, ...], links: tuple[Propagated, ...], calibrated: Calibrated
) -> dict[int, Range]:
    return interpolated_ranges(model, layers, widen_ranges(calibrated.ranges, links))


def _require_finite(job: Job, plan: _Plan) -> None:
    for tensor, rows in plan.calibrated.batches.items():
        finite = np.isfinite(rows).all(1)
        if not finite.all():
            name, batch = plan.model.tensor_names[tensor], int(np.argmin(finite))
            raise DataError(
                f"{job.source.spec.text}: tensor {name!r} is NaN or infinite in batch {batch} of the calibration data"
            )


def _params_of(job: Job, plan: _Plan) -> Params:
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
            "use another recipe (--mnn-recipe=w8)"
        )
    loops = {op.name for op in plan.model.layers if op.name in plan.loop_ranges and is_quantized(op)}
    loop_ranges = {name: ranges for name, ranges in plan.loop_ranges.items() if name in loops}
    params = make_params(plan.model, layers, plan.ranges, loop_ranges)
    if job.recipe.fill is None:
        return params
    return Params((*params.layers, *float_entries(plan.model, job.skip, plan.modules)), params.uuid)


def _record(job: Job, observer: Observer, plan: _Plan, data: Dataset) -> Record:
    batches = {plan.model.tensor_names[tensor]: rows for tensor, rows in plan.calibrated.batches.items()}
    size = BATCH if (job.source.network is not None and not data.is_single) or job.source.batched else 1
    return Record(label_of(observer), data.samples, size, batches)
