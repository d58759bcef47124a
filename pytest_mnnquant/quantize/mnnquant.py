"""Quantizes with MNN's offline tool `mnnquant`, fed with any calibration data; refuses what the tool would ruin.

The tool takes any data as text, one folder a forward pass (its `sequence` form, tools/quantization/calibration.cpp).
How many samples lie in a folder decides what it sees: KL takes folders of one size; EMA keeps 99 % of its average at
each folder, so that with one sample a folder the first sample decides; ADMM looks at the last folder alone.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset, spread_evenly
from pytest_mnnquant.mnnfile.model import Model, ModelInput, Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.mnnquant import mnnquant
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import DataError, SourceError

#: The inputs of one forward pass.
Feed: TypeAlias = dict[str, npt.NDArray[Any]]
# Input values and samples that the tool is fed at most. It parses text slowly, and KL reads all of it twice; ADMM goes
# over the values of every tensor 300 times.
_MOST_VALUES: Final = {"KL": 30_000_000, "EMA": 30_000_000, "ADMM": 1_000_000}
_MOST_SAMPLES: Final = {"KL": 2000, "EMA": 2000, "ADMM": 64}
_EMA_BATCH: Final = 32
_EXACT_INTEGERS: Final = 2**24  # the tool reads integers as 32-bit floats
_INTEGERS: Final = ("int32", "int64", "uint8", "int8")
# A scale reaches so much further than the data, or so much less far, only if the tool saw other data: garbage, for one.
_TOO_FAR, _TOO_NEAR = 2.1, 1e-3
_SHAPE_ONLY: Final = ("ConvertTensor", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Permute")


def quantize_offline(
    model: Model,
    data: Dataset,
    output: Path,
    *,
    feature: str,
    weight: str,
    skip: tuple[str, ...],
    options: RunOptions,
) -> dict[str, Any]:
    """Quantize a float model into `output` and return how that was done.

    `feature` (KL, ADMM, EMA) is the method for activations, `weight` (MAX_ABS, ADMM) for weights; the operators named
    in `skip` stay float; of `options` the tool takes `timeout` and `batched`. Raises `SourceError` for what the tool
    can't do and `NativeFailure` when it fails or writes a model whose scales don't fit the data.
    """
    recipe = f"mnnquant-{feature.lower()}" + ("-admm" if weight == "ADMM" else "")
    _refuse(model, recipe, feature, weight, skip)
    feeds = _feeds(model, data, feature, options.batched)
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
            _write(samples / f"{number:07d}", feed)
        try:
            quantized = mnnquant(model.path, output, {**config, "path": f"{samples}/"}, timeout=options.timeout)
        except NativeFailure as error:
            if error.kind is not FailureKind.CRASHED:
                raise
            raise error.reworded(error.what + _crash_advice(model, feature)) from None
    try:
        _check(quantized, model, feeds, recipe)
    except NativeFailure:
        output.unlink()
        raise
    used = sum(len(feed[model.inputs[0].name]) for feed in feeds)
    return {"tool": "mnnquant", "config": config, "samples": used, "given": data.samples}


def _refuse(model: Model, recipe: str, feature: str, weight: str, skip: tuple[str, ...]) -> None:
    """Raise `SourceError` for what mnnquant is known to crash on, to ruin or to leave undone without a word."""
    if model.has_subgraphs:
        raise SourceError(
            f"{recipe}: the model has While or If bodies (LSTM, GRU, loops), where mnnquant crashes or writes a model "
            "that can't run; use --mnn-recipe=int8 or w8"
        )
    quantized = next((op for op in model.convolutions if op.weights[0].storage is not Storage.FLOAT32), None)
    if quantized is not None:
        raise SourceError(
            f"{recipe}: {quantized.name} is stored in low bits already, which mnnquant quantizes again or leaves as it "
            "is; give the float model"
        )
    norm = next((op.name for op in model.ops if op.kind == "BatchNorm"), None)
    if norm is not None and feature != "EMA":
        raise SourceError(
            f"{recipe}: the model has a BatchNorm operator ({norm}), for which mnnquant takes EMA whatever is asked; "
            "use --mnn-recipe=mnnquant-ema"
        )
    if feature == "EMA" and model.external_path is not None:
        raise SourceError(
            f"{recipe}: the weights lie in {model.external_path.name}, which mnnquant's EMA does not read: it would "
            "leave every layer float; use --mnn-recipe=mnnquant-kl"
        )
    if feature == "EMA" and skip:
        raise SourceError(
            f"{recipe}: mnnquant's EMA quantizes every layer, whatever is to be skipped; use --mnn-recipe=mnnquant-kl"
        )
    if feature == "EMA" and weight == "ADMM":
        raise SourceError(
            f"{recipe}: mnnquant's EMA rounds weights in its own way and ignores ADMM; use --mnn-recipe=mnnquant-ema"
        )


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


def _feeds(model: Model, data: Dataset, feature: str, batched: bool) -> list[Feed]:
    """What the tool runs the model on, one dictionary of arrays a forward pass: samples spread evenly over the data."""
    arrays = {spec.name: _as_fed(spec, data, feature) for spec in model.inputs}
    values = sum(array[0].size for array in arrays.values())
    count = max(1, min(data.samples, _MOST_SAMPLES[feature], _MOST_VALUES[feature] // values))
    if feature == "ADMM" and not batched:
        count = 1
    chosen = spread_evenly(data.samples, count, ends=False)
    size = {"KL": 1, "EMA": _EMA_BATCH, "ADMM": count}[feature] if batched else 1
    return [{name: array[chosen[at : at + size]] for name, array in arrays.items()} for at in range(0, count, size)]


def _as_fed(spec: ModelInput, data: Dataset, feature: str) -> npt.NDArray[Any]:
    array = data.inputs[spec.name]
    if feature == "EMA" and spec.layout == "NHWC" and array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)  # EMA takes every input for NCHW, and brings it into its layout
    if spec.data_type not in _INTEGERS:
        return array.astype(np.float32, copy=False)
    if np.abs(array).max() > _EXACT_INTEGERS:
        raise DataError(
            f"{data.origin}: array {spec.name!r} holds integers above {_EXACT_INTEGERS}, which mnnquant rounds; "
            "use --mnn-recipe=int8"
        )
    return array


def _write(folder: Path, feed: Feed) -> None:
    """One forward pass in mnnquant's `sequence` form: the shapes, and a text file of values for each input."""
    folder.mkdir()
    shapes = [{"name": name, "shape": list(array.shape)} for name, array in feed.items()]
    (folder / "input.json").write_text(json.dumps({"inputs": shapes}), encoding="utf-8")
    for name, array in feed.items():
        file = folder / f"{name.lstrip('/')}.txt"  # a name with slashes is a file in folders, as the tool opens it
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(as_text(array))


def as_text(values: npt.NDArray[Any]) -> bytes:
    """Numbers as decimal text, one a line, nine digits each: parsed, they are the same 32-bit floats in every bit."""
    numbers = values.reshape(-1).astype(np.float64)
    sizes = np.abs(numbers)
    powers = np.floor(np.log10(sizes, where=sizes > 0, out=np.zeros_like(sizes))).astype(np.int64) - 8
    digits = np.rint(sizes * 10.0 ** -powers.astype(np.float64)).astype(np.int64)
    lines = np.empty((len(numbers), 16), np.uint8)
    lines[:, 0] = np.where(np.signbit(numbers), ord("-"), ord("+"))
    for column in range(10, 0, -1):
        digits, last = np.divmod(digits, 10)
        lines[:, column] = last + ord("0")
    lines[:, 11] = ord("e")
    lines[:, 12] = np.where(powers < 0, ord("-"), ord("+"))
    lines[:, 13], lines[:, 14] = np.abs(powers) // 10 + ord("0"), np.abs(powers) % 10 + ord("0")
    lines[:, 15] = ord("\n")
    return lines.tobytes()


def _check(quantized: Model, model: Model, feeds: list[Feed], recipe: str) -> None:
    """Raise `NativeFailure` where the scales that were written can't come from the data that were fed."""
    names, quants = quantized.tensor_names, quantized.tensor_quants
    if all(op.weights[0].storage is Storage.FLOAT32 for op in quantized.convolutions):
        raise NativeFailure(
            FailureKind.BAD_OUTPUT, f"{recipe}: mnnquant ended without an error and left every layer float"
        )
    # Integer tensors have scales too, made from their bytes as if they were floats; nothing reads them.
    for op in quantized.convolutions:
        for index in {op.inputs[0], op.outputs[0]} & quants.keys():
            if not np.isfinite([quants[index].scale, quants[index].zero]).all() or quants[index].scale < 0:
                raise NativeFailure(
                    FailureKind.BAD_OUTPUT,
                    f"{recipe}: mnnquant wrote the scale {quants[index].scale:g} for tensor {names[index]!r}: it is 0 "
                    "for all calibration data, or mnnquant failed on it; use --mnn-recipe=int8",
                )
    constants = {output for op in quantized.ops if op.kind == "Const" for output in op.outputs}
    for spec in model.inputs:
        if spec.name not in names or spec.data_type in _INTEGERS:
            continue
        same = {names.index(spec.name)}
        for op in quantized.ops:
            if op.kind in _SHAPE_ONLY and op.inputs and op.inputs[0] in same:
                same.update(op.outputs)
        if any(_is_joined(op, same, constants) for op in quantized.ops):
            continue
        low = min(0.0, *(float(feed[spec.name].min()) for feed in feeds))
        high = max(0.0, *(float(feed[spec.name].max()) for feed in feeds))
        for index in same & quants.keys():
            span = quants[index].scale * (quants[index].high - quants[index].low)
            if not _TOO_NEAR * (high - low) <= span <= _TOO_FAR * (high - low):
                raise NativeFailure(
                    FailureKind.BAD_OUTPUT,
                    f"{recipe}: mnnquant wrote the scale {quants[index].scale:g} for the input {spec.name!r}, whose "
                    f"data lie in [{low:g}, {high:g}]: it can't have seen them",
                )


def _is_joined(op: Op, tensors: set[int], constants: set[int]) -> bool:
    """Whether an operator puts one of these tensors and others together (Concat): KL gives all of them one scale."""
    return not tensors.isdisjoint(op.inputs) and len(set(op.inputs) - constants) > 1
