"""Quantizes to int8 with calibrated ranges: in PyTorch if the source is a PyTorch model, else in MNN's float run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pytest_mnnquant.measurements.calibration import Record
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.calibration import save_params
from pytest_mnnquant.quantize.int8_plan import Plan, calibrate, convert_plan, params_of
from pytest_mnnquant.quantize.int8_transformations import equalized_plan, improved_plan, remove_tried
from pytest_mnnquant.quantize.job import MODEL_NAME, PARAMS_NAME, Job, QuantizerOutput
from pytest_mnnquant.quantize.observers import label_of
from pytest_mnnquant.quantize.record import save_record
from pytest_mnnquant.recipes.recipe import Int8Recipe, Observer
from pytest_mnnquant.runtime.inference import BATCH


def quantize_int8(job: Job, recipe: Int8Recipe, folder: Path) -> QuantizerOutput:
    """Calibrate all layers that MNN can run in int8, and convert with the resulting params file.

    Raises `DataError` for values that are NaN or infinite, and `SourceError` if no layer can be quantized.
    """
    assert job.data is not None  # `make_variant` refuses a recipe whose data are missing.
    plan = calibrate(job, recipe.observer, job.data, folder)
    if recipe.equalized:
        plan = equalized_plan(job, recipe, plan, job.data, folder)
    params = params_of(job, plan)
    path = save_params(params, folder / PARAMS_NAME)
    flags = ("--weightQuantBits", str(recipe.fill)) if recipe.fill is not None else ()
    # From the float .mnn, not from ONNX: MNN loses the weights of a Linear with 65,536 or more of them from ONNX.
    arguments = ("--compressionParamsFile", str(path), *flags)
    convert_plan(job, recipe, plan, plan.model, folder / MODEL_NAME, arguments)
    if recipe.corrected or recipe.rounded:
        plan = improved_plan(job, recipe, plan, params, folder, arguments)
    remove_tried(folder)
    save_record(_record(job, recipe.observer, plan, job.data), folder)
    return QuantizerOutput(
        params=PARAMS_NAME,
        drift=plan.calibrated.drift,
        modules=plan.modules,
        transformations=[dataclasses.asdict(item) for item in plan.transformations],
        arguments=["mnnconvert", "-f", "MNN", "--compressionParamsFile", PARAMS_NAME, *flags],
    )


def _record(job: Job, observer: Observer, plan: Plan, data: Dataset) -> Record:
    batches = {plan.model.tensor_names[tensor]: rows for tensor, rows in plan.calibrated.batches.items()}
    size = BATCH if (job.source.network is not None and not data.is_single) or job.source.batched else 1
    return Record(label_of(observer), data.samples, size, batches)
