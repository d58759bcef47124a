"""Quantizes with MNN's offline tool `mnnquant`, and refuses what the tool would ruin."""

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
from pytest_mnnquant.quantize.mnnquant_samples import INTEGERS, Feed, feeds_of, write_feed
from pytest_mnnquant.quantize.record import save_record
from pytest_mnnquant.recipes.mnn_support import is_skipped
from pytest_mnnquant.recipes.recipe import MnnquantRecipe
from pytest_mnnquant.runtime.inference import BATCH
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.mnnquant import mnnquant
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import SourceError

# A scale reaches so much further than the data, or so much less far, only if the tool saw other data: garbage, for one.
_TOO_FAR, _TOO_NEAR = 2.1, 1e-3
_SHAPE_ONLY: Final = ("ConvertTensor", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Permute")


def quantize_with_mnnquant(job: Job, recipe: MnnquantRecipe, folder: Path) -> QuantizerOutput:
    """Quantize the float model with the user's calibration data. Raises as `quantize_offline` does."""
    assert job.data is not None  # `make_variant` has refused a recipe that needs data and has none.
    model, modules = job.source.model, modules_to_skip(job)
    skip = tuple(op.name for op in model.convolutions if is_skipped(op, job.skip, modules.get(op.name, "")))
    arguments = quantize_offline(model, job.data, folder / MODEL_NAME, recipe, skip, job.options)
    save_record(Record(recipe.name, arguments["samples"], BATCH), folder)
    return QuantizerOutput(modules=modules, arguments=arguments)


def quantize_offline(
    model: Model, data: Dataset, output: Path, recipe: MnnquantRecipe, skip: tuple[str, ...], options: RunOptions
) -> dict[str, Any]:
    """Quantize a float model into `output` and return how that was done.

    The operators named in `skip` stay float; of `options` the tool takes `timeout` and `batched`. Raises `SourceError`
    for what the tool can't do and `NativeFailure` when it fails or writes a model whose scales don't fit the data.
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
        # MNN's default for EMA adds tables to 3x3 convolutions that made no model better.
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
            raise error.reworded(error.what + _crash_advice(model, feature)) from None
    try:
        _require_layers_quantized(quantized, recipe)
        _require_valid_scales(quantized, recipe)
        _require_scales_of_inputs(quantized, model, feeds, recipe)
    except NativeFailure:
        output.unlink()
        raise
    used = sum(len(feed[model.inputs[0].name]) for feed in feeds)
    return {"tool": "mnnquant", "config": config, "samples": used, "given": data.samples}


def _refuse(model: Model, recipe: MnnquantRecipe, skip: tuple[str, ...]) -> None:
    """Raise `SourceError` for what mnnquant is known to crash on, to ruin or to leave undone without a word."""
    reason = _obstacle(model, recipe) or (_obstacle_for_ema(model, recipe, skip) if recipe.feature == "EMA" else "")
    if reason:
        raise SourceError(f"{recipe.name}: {reason}")


def _obstacle(model: Model, recipe: MnnquantRecipe) -> str:
    if model.has_subgraphs:
        return (
            "the model has While or If bodies (LSTM, GRU, loops), where mnnquant crashes or writes a model "
            "that can't run; use --mnn-recipe=int8 or w8"
        )
    quantized = next((op for op in model.convolutions if op.weights[0].storage is not Storage.FLOAT32), None)
    if quantized is not None:
        return (
            f"{quantized.name} is stored in low bits already, which mnnquant quantizes again or leaves as it "
            "is; give the float model"
        )
    norm = next((op.name for op in model.ops if op.kind == "BatchNorm"), None)
    if norm is not None and recipe.feature != "EMA":
        return (
            f"the model has a BatchNorm operator ({norm}), for which mnnquant takes EMA whatever is asked; "
            "use --mnn-recipe=mnnquant-ema"
        )
    return ""


def _obstacle_for_ema(model: Model, recipe: MnnquantRecipe, skip: tuple[str, ...]) -> str:
    if model.external_path is not None:
        return (
            f"the weights lie in {model.external_path.name}, which mnnquant's EMA does not read: it would "
            "leave every layer float; use --mnn-recipe=mnnquant-kl"
        )
    if skip:
        return "mnnquant's EMA quantizes every layer, whatever is to be skipped; use --mnn-recipe=mnnquant-kl"
    if recipe.weight == "ADMM":
        return "mnnquant's EMA rounds weights in its own way and ignores ADMM; use --mnn-recipe=mnnquant-ema"
    return ""


def _crash_advice(model: Model, feature: str) -> str:
    """What is known about a crash, and what to use instead."""
    if feature != "KL":
        return "; use --mnn-recipe=int8"
    broken = next((op for op in model.ops if _is_broken_up(model, op)), None)
    cause = f" (MNN 3.6.1's KL does on operators like {broken.kind} {broken.name})" if broken else ""
    return f"{cause}; use --mnn-recipe=mnnquant-ema or int8"


def _is_broken_up(model: Model, op: Op) -> bool:
    """Whether MNN computes an operator in parts whose tensors KL does not know, and takes the first of none of them."""
    if op.kind == "Reduction" and len(op.inputs) > 1:
        axes = next((other.shape for other in model.ops if op.inputs[1] in other.outputs), ())
        return len(axes) == 1 and axes[0] > 1
    return op.kind == "CumSum"


def _require_layers_quantized(quantized: Model, recipe: MnnquantRecipe) -> None:
    if all(op.weights[0].storage is Storage.FLOAT32 for op in quantized.convolutions):
        raise NativeFailure(
            FailureKind.BAD_OUTPUT, f"{recipe.name}: mnnquant ended without an error and left every layer float"
        )


def _require_valid_scales(quantized: Model, recipe: MnnquantRecipe) -> None:
    names, quants = quantized.tensor_names, quantized.tensor_quants
    # Integer tensors have scales too, made from their bytes as if they were floats; nothing reads them.
    for op in quantized.convolutions:
        for index in {op.inputs[0], op.outputs[0]} & quants.keys():
            if not np.isfinite([quants[index].scale, quants[index].zero]).all() or quants[index].scale < 0:
                raise NativeFailure(
                    FailureKind.BAD_OUTPUT,
                    f"{recipe.name}: mnnquant wrote the scale {quants[index].scale:g} for tensor {names[index]!r}: it "
                    "is 0 for all calibration data, or mnnquant failed on it; use --mnn-recipe=int8",
                )


def _require_scales_of_inputs(quantized: Model, model: Model, feeds: list[Feed], recipe: MnnquantRecipe) -> None:
    """Raise `NativeFailure` if the scale of an input can't come from the data that were fed."""
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
                    f"{recipe.name}: mnnquant wrote the scale {quant.scale:g} for the input {spec.name!r}, whose "
                    f"data lie in [{low:g}, {high:g}]: it can't have seen them",
                )


def _same_values(model: Model, tensor: int) -> set[int] | None:
    """The tensors that hold the values of a tensor in another shape; None if KL gives them a scale with others."""
    constants = {output for op in model.ops if op.kind == "Const" for output in op.outputs}
    same = {tensor}
    for op in model.ops:
        if op.kind in _SHAPE_ONLY and op.inputs and op.inputs[0] in same:
            same.update(op.outputs)
    return None if any(_is_joined(op, same, constants) for op in model.ops) else same


def _is_joined(op: Op, tensors: set[int], constants: set[int]) -> bool:
    """Whether an operator puts one of these tensors and others together (Concat): KL gives all of them one scale."""
    return not tensors.isdisjoint(op.inputs) and len(set(op.inputs) - constants) > 1
