"""Quantizes with mnncompress or a custom pipeline: its calibration, then MNN's converter as its users call it."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase
from pathlib import Path

from pytest_mnnquant.measurements.calibration import Record
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.entries import layers_of, repaired
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.params import LayerParams, Params, read_params
from pytest_mnnquant.quantize.calibration import save_params
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.job import FLOAT_NAME, MODEL_NAME, PARAMS_NAME, Job, QuantizerOutput
from pytest_mnnquant.quantize.observers import label_of
from pytest_mnnquant.quantize.pipeline import MNNCOMPRESS, PipelineInput, PipelineOutput, run_pipeline
from pytest_mnnquant.quantize.ranges import calibrate_runtime
from pytest_mnnquant.quantize.record import save_record
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.recipes.recipe import MnncompressRecipe, Observer, PipelineRecipe, Recipe
from pytest_mnnquant.runtime.inference import BATCH
from pytest_mnnquant.sources.spec import SourceError


def quantize_with_pipeline(job: Job, recipe: MnncompressRecipe | PipelineRecipe, folder: Path) -> QuantizerOutput:
    """Run the pipeline in a child process, then convert its ONNX export unless it has written a `.mnn`.

    Raises `SourceError` for an error of the pipeline and `NativeFailure` for a process that crashed.
    """
    source, choices = job.source, job.choices
    if source.network is None or job.data is None:
        raise SourceError(f"{recipe.name}: needs a PyTorch source (file.py:callable) and calibration data")
    pipeline = recipe.pipeline if isinstance(recipe, PipelineRecipe) else MNNCOMPRESS
    given = PipelineInput(source.spec, source.network, job.data, job.mode or "eval")
    made = run_pipeline(pipeline, choices.root, given, folder / "pipeline", job.options, choices.exporter)
    base = source.model
    if made.onnx is not None:
        base = convert_twice(made.onnx, folder / FLOAT_NAME, timeout=choices.timeout)
    save_record(_record(job, made, base, job.data), folder)
    model, params, arguments = made.quantized, made.params, [pipeline]
    if model is None:
        model, params, converted = _convert(job, made, base, folder)
        arguments += converted
    return QuantizerOutput(
        model=_inside(model, folder),
        params=_inside(params, folder) if params else None,
        drift=made.observations.drift,
        modules=_modules_of(read_params(made.params), base) if _is_mnncompress(job) and made.params else {},
        arguments=arguments,
    )


def _is_mnncompress(job: Job) -> bool:
    return isinstance(job.recipe, MnncompressRecipe)


def _inside(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder.resolve()))


def _record(job: Job, made: PipelineOutput, base: Model, data: Dataset) -> Record:
    record = Record(job.recipe.name, data.samples, BATCH, observations=made.observations)
    if not _is_mnncompress(job):
        return record
    # mnncompress records no ranges of batches; those of the float model show whether the first batch dominates.
    seen = calibrate_runtime(base, int8_layers(base), data, job.options).batches
    batches = {base.tensor_names[tensor]: rows for tensor, rows in seen.items()}
    return dataclasses.replace(record, observer=label_of(Observer("average")), batches=batches)


def _convert(job: Job, made: PipelineOutput, base: Model, folder: Path) -> tuple[Path, Path, list[str]]:
    """The quantized model, the params file that it was converted with, and the converter's arguments."""
    if made.onnx is None or made.params is None:
        raise SourceError(f"{job.recipe.name}: made neither a .mnn nor an .onnx with its params file")
    start, kind, params = made.onnx, "ONNX", made.params
    if _is_adapted(job):
        start, kind, params = folder / FLOAT_NAME, "MNN", _adapt(job, made.params, base, folder)
    flags = ("--compressionParamsFile", str(params))
    model = convert_twice(start, folder / MODEL_NAME, flags, timeout=job.choices.timeout).path
    return model, params, ["mnnconvert", "-f", kind, *flags[:1], params.name]


def _modules_of(params: Params, base: Model) -> dict[str, str]:
    """The module of each layer: mnncompress names weights as PyTorch does, `features.0.weight`."""
    entries = layers_of(params, base)
    return {op.name: entry.weight.name.removesuffix(".weight") for entry, ops in entries for op in ops}


def _is_adapted(job: Job) -> bool:
    """Whether the params file is changed before conversion; that of a custom pipeline only if its recipe says so."""
    return _repairs_names(job.recipe) or (_is_mnncompress(job) and bool(job.skip))


def _repairs_names(recipe: Recipe) -> bool:
    recipe = recipe.like if isinstance(recipe, PipelineRecipe) else recipe
    return isinstance(recipe, MnncompressRecipe) and recipe.repaired


def _adapt(job: Job, path: Path, base: Model, folder: Path) -> Path:
    """The params file with the tensor names that MNN looks for, and without the layers that stay float."""
    params = read_params(path)
    entries = tuple(entry for entry in params.layers if not _is_skipped(entry, job.skip))
    # The model keeps the uuid of the .mnn that it is quantized from.
    params = dataclasses.replace(params, layers=entries, uuid=base.uuid)
    return save_params(repaired(params, base) if _repairs_names(job.recipe) else params, folder.resolve() / PARAMS_NAME)


def _is_skipped(entry: LayerParams, skip: tuple[str, ...]) -> bool:
    names = (entry.name, entry.weight.name, entry.weight.name.removesuffix(".weight"))
    return any(fnmatchcase(name, pattern) for pattern in skip for name in names)
