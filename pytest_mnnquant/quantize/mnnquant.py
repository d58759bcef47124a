"""Quantizes with MNN's offline tool `mnnquant`, and refuses models that the tool would ruin."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.measurements.calibration import Record
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.quantize.job import MODEL_NAME, Job, QuantizerOutput, modules_to_skip
from pytest_mnnquant.quantize.mnnquant_crash import crashing_operator
from pytest_mnnquant.quantize.mnnquant_samples import INTEGERS, Feed, feeds_of, write_feed
from pytest_mnnquant.quantize.record import save_record
from pytest_mnnquant.recipes.mnn_support import is_skipped
from pytest_mnnquant.recipes.recipe import MnnquantRecipe
from pytest_mnnquant.runtime.inference import BATCH
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.mnnquant import mnnquant
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import SourceError

# The range of a scale over the range of the data: beyond these the tool saw other data, such as uninitialized memory.
_TOO_FAR, _TOO_NEAR = 2.1, 1e-3
_BODIES: Final = frozenset({"While", "If"})
_SHAPE_ONLY: Final = ("ConvertTensor", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Permute")


def quantize_with_mnnquant(job: Job, recipe: MnnquantRecipe, folder: Path) -> QuantizerOutput:
    """Quantize the float model with the user's calibration data. Raises the errors of `quantize_offline`."""
    assert job.data is not None  # `make_variant` refuses a recipe whose data are missing.
    model, modules = job.source.model, modules_to_skip(job)
    skip = tuple(op.name for op in model.convolutions if is_skipped(op, job.skip, modules.get(op.name, "")))
    arguments = quantize_offline(model, job.data, folder / MODEL_NAME, recipe, skip, job.options)
    save_record(Record(recipe.name, arguments["samples"], BATCH), folder)
    return QuantizerOutput(modules=modules, arguments=arguments)


def quantize_offline(
    model: Model, data: Dataset, output: Path, recipe: MnnquantRecipe, skip: tuple[str, ...], options: RunOptions
) -> dict[str, Any]:
    """Quantize a float model into `output` and return the tool's configuration and number of samples.

    The operators named in `skip` stay float; the tool uses `timeout` and `batched` of `options`. Raises `SourceError`
    for models that the tool can't quantize, and `NativeFailure` if it fails or writes scales that do not fit the data.
    """
    feature, weight = recipe.feature, recipe.weight
    _refuse(model, recipe, skip)
    feeds = feeds_of(model, data, feature, options.batched)
    config = {
        "input_type": "sequence",
        "used_sample_num": len(feeds),
        "batch_size": 1,
        "feature_quantize_method": feature,
        "weight_quantize_method": weight,
        "feature_clamp_value": 127,
        "weight_clamp_value": 127,
        "quant_bits": 8,
        # MNN's default for EMA adds tables to 3x3 convolutions, which improved no model.
        "winogradOpt": False,
        "skip_quant_op_names": list(skip),
        "inputs": [{"name": spec.name, "shape": list(feeds[0][spec.name].shape)} for spec in model.inputs],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="samples-", dir=output.parent) as name:
        samples = Path(name).resolve()
        for number, feed in enumerate(feeds):
            write_feed(samples / f"{number:07d}", feed)
        try:
            quantized = mnnquant(model.path, output, {**config, "path": f"{samples}/"}, timeout=options.timeout)
        except NativeFailure as error:
            if error.kind is not FailureKind.CRASHED:
                raise
            raise _explained_crash(error, model, feature) from None
    try:
        _require_layers_quantized(quantized, recipe)
        _require_valid_scales(quantized, recipe)
        _require_scales_of_inputs(quantized, model, feeds, recipe)
    except NativeFailure:
        output.unlink()
        raise
    first = model.inputs[0].name
    axis = data.axes.get(first, 0)
    used = len(feeds) if axis is None else sum(feed[first].shape[axis] for feed in feeds)
    return {"tool": "mnnquant", "config": config, "samples": used, "given": data.samples}


def _refuse(model: Model, recipe: MnnquantRecipe, skip: tuple[str, ...]) -> None:
    """Raise `SourceError` for a model that mnnquant is known to crash on, to ruin, or silently not to quantize."""
    _refuse_loops(model, recipe)
    reason = _obstacle(model, recipe) or (_obstacle_for_ema(model, recipe, skip) if recipe.feature == "EMA" else "")
    if reason:
        raise SourceError(f"{recipe.name}: {reason}")


def _refuse_loops(model: Model, recipe: MnnquantRecipe) -> None:
    if not model.has_subgraphs:
        return
    loop = next((op for op in model.ops if op.kind in _BODIES and not op.subgraph), None)
    name = f"{loop.kind} {loop.name}" if loop else "a While or If"
    raise SourceError(
        f"{recipe.name}: mnnquant crashes on {name}, or writes a model that can't run: it does not support While and "
        "If (LSTM, GRU, loops)",
        fix="--mnn-recipe=int8+w8",
        operator=loop.name if loop else "",
    )


def _obstacle(model: Model, recipe: MnnquantRecipe) -> str:
    quantized = next((op for op in model.convolutions if op.weights[0].storage is not Storage.FLOAT32), None)
    if quantized is not None:
        return (
            f"{quantized.name} is stored in few bits already, which mnnquant quantizes again or does not change; "
            "give the float model"
        )
    norm = next((op.name for op in model.ops if op.kind == "BatchNorm"), None)
    if norm is not None and recipe.feature != "EMA":
        return (
            f"the model has a BatchNorm operator ({norm}), for which mnnquant always uses EMA; "
            "use --mnn-recipe=mnnquant-ema"
        )
    return ""


def _obstacle_for_ema(model: Model, recipe: MnnquantRecipe, skip: tuple[str, ...]) -> str:
    if model.external_path is not None:
        return (
            f"the weights are in {model.external_path.name}, which mnnquant's EMA does not read: all layers would "
            "stay float; use --mnn-recipe=mnnquant-kl"
        )
    if skip:
        return "mnnquant's EMA ignores layers to skip and quantizes all; use --mnn-recipe=mnnquant-kl"
    if recipe.weight == "ADMM":
        return "mnnquant's EMA has its own rounding of weights and ignores ADMM; use --mnn-recipe=mnnquant-ema"
    return ""


def _explained_crash(error: NativeFailure, model: Model, feature: str) -> NativeFailure:
    """A crash with the operator that causes it, if that is known, and the recipes to use instead."""
    if feature == "EMA":
        return NativeFailure(error.kind, error.what, error.log, fix="--mnn-recipe=int8")
    fix, operator = "--mnn-recipe=mnnquant-ema or --mnn-recipe=int8", crashing_operator(model)
    if operator is None:
        return NativeFailure(error.kind, error.what, error.log, fix=fix)
    what = f"{error.what}: its calibration does not support {operator.kind} {operator.name} here (MNN 3.6.1)"
    return NativeFailure(error.kind, what, error.log, fix=fix, operator=operator.name)


def _require_layers_quantized(quantized: Model, recipe: MnnquantRecipe) -> None:
    if all(op.weights[0].storage is Storage.FLOAT32 for op in quantized.convolutions):
        raise NativeFailure(
            FailureKind.BAD_OUTPUT, f"{recipe.name}: mnnquant ended without an error, but all layers are still float"
        )


def _require_valid_scales(quantized: Model, recipe: MnnquantRecipe) -> None:
    names, quants = quantized.tensor_names, quantized.tensor_quants
    # Integer tensors have scales too, computed from their bytes as floats; MNN does not read them.
    for op in quantized.convolutions:
        for index in {op.inputs[0], op.outputs[0]} & quants.keys():
            if not np.isfinite([quants[index].scale, quants[index].zero]).all() or quants[index].scale < 0:
                raise NativeFailure(
                    FailureKind.BAD_OUTPUT,
                    f"{recipe.name}: mnnquant wrote the scale {quants[index].scale:g} for tensor {names[index]!r}: the "
                    "tensor is 0 on all calibration data, or mnnquant failed on it; use --mnn-recipe=int8",
                )


def _require_scales_of_inputs(quantized: Model, model: Model, feeds: list[Feed], recipe: MnnquantRecipe) -> None:
    """Raise `NativeFailure` if the scale of an input can't come from the given data."""
    for spec in model.inputs:
        if spec.name not in quantized.tensor_names or spec.data_type in INTEGERS:
            continue
        same = _same_values(quantized, quantized.tensor_names.index(spec.name))
        if same is None:
            continue
        low = min(0.0, *(float(feed[spec.name].min()) for feed in feeds))
        high = max(0.0, *(float(feed[spec.name].max()) for feed in feeds))
        for index in same & quantized.tensor_quants.keys():
            quant = quantized.tensor_quants[index]
            if not _TOO_NEAR * (high - low) <= quant.scale * (quant.high - quant.low) <= _TOO_FAR * (high - low):
                raise NativeFailure(
                    FailureKind.BAD_OUTPUT,
                    f"{recipe.name}: mnnquant wrote the scale {quant.scale:g} for the input {spec.name!r}, whose data "
                    f"span {low:g} to {high:g}: mnnquant did not read these data; use --mnn-recipe=int8",
                )


def _same_values(model: Model, tensor: int) -> set[int] | None:
    """The tensors that hold the values of a tensor in another shape; None if KL gives other tensors the same scale."""
    constants = {output for op in model.ops if op.kind == "Const" for output in op.outputs}
    same = {tensor}
    for op in model.ops:
        if op.kind in _SHAPE_ONLY and op.inputs and op.inputs[0] in same:
            same.update(op.outputs)
    return None if any(_is_joined(op, same, constants) for op in model.ops) else same


def _is_joined(op: Op, tensors: set[int], constants: set[int]) -> bool:
    """Whether an operator joins one of these tensors with others (Concat): KL gives all of them the same scale."""
    return not tensors.isdisjoint(op.inputs) and len(set(op.inputs) - constants) > 1
