"""Who quantizes: one function a maker, each leaves a model (and what it came from) in a folder.

Such a folder holds `model.mnn`; `float.mnn` where the model was not quantized from the source's own float model; the
params file; and the record of the calibration. The function returns what else is known, as JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.measurements.calibration import Record
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.entries import layers_of, repaired
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.params import LayerParams, Params, WeightParams, read_params, write_params
from pytest_mnnquant.quantize.calibration import Range, make_params, save_params, settled
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.float_model import Choices, Prepared
from pytest_mnnquant.quantize.observers import describe
from pytest_mnnquant.quantize.offline import quantize_offline
from pytest_mnnquant.quantize.propagation import carried, watched_ops
from pytest_mnnquant.quantize.ranges import Calibrated, calibrate_runtime
from pytest_mnnquant.quantize.re_export import export_again
from pytest_mnnquant.quantize.record import save_record
from pytest_mnnquant.recipes.mnn_support import int8_layers, is_skipped
from pytest_mnnquant.recipes.recipe import Quantizer, Recipe
from pytest_mnnquant.runtime.inference import BATCH
from pytest_mnnquant.sources.spec import DataError, SourceError

MADE: Final = "model.mnn"
FLOAT: Final = "float.mnn"
PARAMS_NAME: Final = "compress_params_index.bin"
Facts = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is to be quantized and how. `skip` are globs of layers that stay float."""

    source: Prepared
    recipe: Recipe
    mode: str | None
    skip: tuple[str, ...]
    data: Dataset | None
    choices: Choices

    @property
    def limits(self) -> dict[str, Any]:
        """How the source's model is run."""
        return {"timeout": self.choices.timeout, "batched": self.source.batched}


# MNN's converter ----------------------------------------------------------------------------------------------------


def by_converter(job: Job, folder: Path) -> Facts:
    """Weights only: the converter's own flags, and bits 0 for layers that stay float."""
    model, flags = job.source.model, job.recipe.flags
    modules = _modules(job)
    skipped = _left_float(model, job.skip, modules)
    if skipped and "--fp16" in flags:
        raise SourceError("fp16: MNN casts all layers, so none can stay float; leave out --mnn-skip-layer for it")
    if skipped:
        write_params(Params(skipped, model.uuid), folder / "left_float.bin")
        flags = (*flags, "--compressionParamsFile", str(folder / "left_float.bin"))
    convert_twice(model.path, folder / MADE, flags, timeout=job.choices.timeout)
    return {"modules": modules, "arguments": ["mnnconvert", "-f", "MNN", *job.recipe.flags]}


def _left_float(model: Model, skip: tuple[str, ...], modules: dict[str, str]) -> tuple[LayerParams, ...]:
    """Entries of a params file that keep layers float when weights are quantized."""
    return tuple(
        LayerParams(WeightParams(op.name, bits=0), op_name=op.name, subgraph=op.subgraph)
        for op in model.layers
        if op.is_convolution and is_skipped(op, skip, modules.get(op.name, ""))
    )


# Ours ---------------------------------------------------------------------------------------------------------------


def by_calibration(job: Job, folder: Path) -> Facts:
    """Calibrated ranges for all layers that MNN can run in int8."""
    if job.source.network is not None:
        return _in_torch(job, folder)
    assert job.data is not None
    model = job.source.model
    layers = int8_layers(model)
    links = carried(model, layers)
    found = calibrate_runtime(model, watched_ops(layers, links), job.data, job.recipe, **job.limits)
    return _apply(job, folder, model, found, settled(found.ranges, links), {}, {})


def _in_torch(job: Job, folder: Path) -> Facts:
    from pytest_mnnquant.quantize.ranges import calibrate_torch
    from pytest_mnnquant.quantize.recurrent import recurrent_layers, recurrent_ranges
    from pytest_mnnquant.quantize.tensor_binding import bind
    from pytest_mnnquant.quantize.unfolded_batchnorm import loose_norms, with_plain_norms

    assert job.data is not None
    source, choices, data = job.source, job.choices, job.data
    network: Any = source.network
    model, loose = source.model, loose_norms(network, source.model, data, **job.limits)

    def export(exported: Any) -> Model:
        plain, label = with_plain_norms(exported, loose), job.recipe.label(job.mode)
        return export_again(plain, source, source.data or data, folder, choices, label)

    if loose:
        model = export(network)
    layers = int8_layers(model)
    links = carried(model, layers)
    ops = watched_ops(layers, links)
    binding = bind(network, model, ops, data, **job.limits)
    found = calibrate_torch(network, model, ops, binding, data, job.mode or "eval", job.recipe, **job.limits)
    if found.drift > 0:
        # What a pipeline that calibrates in train mode ships: the model with the statistics that calibration left.
        drifted = export(found.network)
        if drifted.tensor_names != model.tensor_names:
            raise SourceError(f"{source.spec.text}: the model exports to another graph after calibration in train mode")
        model = drifted
    inner, modules = recurrent_layers(network, model), dict(binding.modules)
    modules |= {item.op.name: item.module for item in inner}
    hidden = recurrent_ranges(found.network, model, inner, data) if inner and found.network is not None else {}
    return _apply(job, folder, model, found, settled(found.ranges, links), modules, hidden)


def _apply(
    job: Job,
    folder: Path,
    model: Model,
    found: Calibrated,
    ranges: dict[int, Range],
    modules: dict[str, str],
    hidden: dict[str, tuple[Range, Range]],
) -> Facts:
    able = int8_layers(model)
    broken = [tensor for tensor, rows in found.batches.items() if not np.isfinite(rows).all()]
    if broken:
        name, batch = model.tensor_names[broken[0]], int(np.argmin(np.isfinite(found.batches[broken[0]]).all(1)))
        raise DataError(
            f"{job.source.spec.text}: tensor {name!r} is NaN or infinite in batch {batch} of the calibration data"
        )
    # A layer without ranges never ran: it stays float, and the coverage check says so.
    layers = tuple(
        op
        for op in able
        if not is_skipped(op, job.skip, modules.get(op.name, "")) and {op.inputs[0], op.outputs[0]} <= ranges.keys()
    )
    if not layers and job.recipe.fill is None:
        raise SourceError(
            f"{job.recipe.name}: there is no layer that MNN can run in int8; use another recipe (--mnn-recipe=w8)"
        )
    inner = {
        op.name: hidden[op.name]
        for op in model.layers
        if op.name in hidden and not is_skipped(op, job.skip, modules.get(op.name, ""))
    }
    params, flags = make_params(model, layers, ranges, inner), []
    if job.recipe.fill is not None:
        flags = ["--weightQuantBits", str(job.recipe.fill)]
        params = Params((*params.layers, *_left_float(model, job.skip, modules)), params.uuid)
    path = save_params(params, folder / PARAMS_NAME)
    # From the float .mnn, not from ONNX: a Linear of 65,536 weights or more loses its weights on the way from ONNX.
    convert_twice(
        model.path, folder / MADE, ("--compressionParamsFile", str(path), *flags), timeout=job.choices.timeout
    )
    assert job.data is not None
    observer = describe(job.recipe.observer, job.recipe.number)
    batches = {model.tensor_names[tensor]: rows for tensor, rows in found.batches.items()}
    size = BATCH if (job.source.network is not None and not job.data.alone) or job.source.batched else 1
    save_record(Record(observer, job.data.samples, size, batches), folder)
    return {
        "params": PARAMS_NAME,
        "drift": found.drift,
        "modules": modules,
        "arguments": ["mnnconvert", "-f", "MNN", "--compressionParamsFile", PARAMS_NAME, *flags],
    }


# MNN's offline tool -------------------------------------------------------------------------------------------------


def by_mnnquant(job: Job, folder: Path) -> Facts:
    """MNN's own offline quantization, fed with our calibration data."""
    assert job.data is not None
    model, recipe = job.source.model, job.recipe
    modules = _modules(job)
    skip = tuple(op.name for op in model.convolutions if is_skipped(op, job.skip, modules.get(op.name, "")))
    asked: Any = {"feature": recipe.feature, "weight": recipe.weight, "skip": skip, **job.limits}
    how = quantize_offline(model, job.data, folder / MADE, **asked)
    save_record(Record(recipe.name, how["samples"], BATCH), folder)
    return {"modules": modules, "arguments": how}


def _modules(job: Job) -> dict[str, str]:
    """The user's own module for each layer, found where a pattern of layers to skip may mean it."""
    if not job.skip or job.source.network is None or job.source.data is None:
        return {}
    from pytest_mnnquant.quantize.tensor_binding import bind

    source = job.source
    network: Any = source.network
    return bind(network, source.model, int8_layers(source.model), job.source.data, **job.limits).modules


# mnncompress, and pipelines of one's own -----------------------------------------------------------------------------


def by_pipeline(job: Job, folder: Path) -> Facts:
    """Somebody else's calibration in a process of its own, converted as its users do, or with its names repaired."""
    from pytest_mnnquant.quantize.pipeline import MNNCOMPRESS, run_pipeline

    source, recipe, choices = job.source, job.recipe, job.choices
    if source.network is None or job.data is None:
        raise SourceError(f"{recipe.name}: it needs a PyTorch source (file.py:callable) and calibration data")
    made = run_pipeline(
        recipe.pipeline or MNNCOMPRESS,
        choices.root,
        source.spec,
        source.network,
        job.data,
        job.mode or "eval",
        folder / "pipeline",
        exporter=choices.exporter,
        **job.limits,
    )
    base, record = source.model, Record(recipe.name, job.data.samples, BATCH, watched=made.watched)
    facts: Facts = {"drift": made.watched.drift, "arguments": [recipe.pipeline or MNNCOMPRESS]}
    if made.onnx is not None:
        base = convert_twice(made.onnx, folder / FLOAT, timeout=choices.timeout)
    if recipe.maker is Quantizer.MNNCOMPRESS:
        if made.params is not None:
            facts["modules"] = _modules_of(read_params(made.params), base)
        # It keeps no ranges of batches; those of the float model tell whether the first one decided its average.
        seen = calibrate_runtime(base, int8_layers(base), job.data, **job.limits).batches
        batches = {base.tensor_names[tensor]: rows for tensor, rows in seen.items()}
        record = dataclasses.replace(record, observer=describe("average", None), batches=batches)
    save_record(record, folder)
    params, model = made.params, made.quantized
    if model is None:
        if made.onnx is None or params is None:
            raise SourceError(f"{recipe.name}: it made neither a .mnn nor an .onnx with its params file")
        start, params = (folder / FLOAT, _adapted(job, params, base, folder)) if _adapts(job) else (made.onnx, params)
        flags = ("--compressionParamsFile", str(params))
        model = convert_twice(start, folder / MADE, flags, timeout=choices.timeout).path
        facts["arguments"] += ["mnnconvert", "-f", "MNN" if _adapts(job) else "ONNX", *flags[:1], params.name]
    return {
        **facts,
        "model": str(model.relative_to(folder.resolve())),
        "params": str(params.relative_to(folder.resolve())) if params else None,
    }


def _modules_of(params: Params, base: Model) -> dict[str, str]:
    """The module of each layer: mnncompress names weights as PyTorch does, `features.0.weight`."""
    found = layers_of(params, base)
    return {op.name: entry.weight.name.removesuffix(".weight") for entry, ops in found for op in ops}


def _adapts(job: Job) -> bool:
    """Whether the params file is changed first; a user's own is taken as it is."""
    return job.recipe.repaired or (job.recipe.maker is Quantizer.MNNCOMPRESS and bool(job.skip))


def _adapted(job: Job, path: Path, base: Model, folder: Path) -> Path:
    """The params file with the tensor names that MNN looks for, and without the layers that stay float."""
    params = read_params(path)
    kept = tuple(entry for entry in params.layers if not _names_skipped(entry, job.skip))
    # The model keeps the uuid of the .mnn that it is quantized from.
    params = dataclasses.replace(params, layers=kept, uuid=base.uuid)
    return save_params(repaired(params, base) if job.recipe.repaired else params, folder.resolve() / PARAMS_NAME)


def _names_skipped(entry: LayerParams, skip: tuple[str, ...]) -> bool:
    names = (entry.name, entry.weight.name, entry.weight.name.removesuffix(".weight"))
    return any(fnmatchcase(name, pattern) for pattern in skip for name in names)


MAKE: Final[dict[Quantizer, Callable[[Job, Path], Facts]]] = {
    Quantizer.CONVERTER: by_converter,
    Quantizer.BUILTIN: by_calibration,
    Quantizer.MNNQUANT: by_mnnquant,
    Quantizer.MNNCOMPRESS: by_pipeline,
    Quantizer.PIPELINE: by_pipeline,
}
