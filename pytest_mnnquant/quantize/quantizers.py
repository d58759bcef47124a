"""The quantizers: one function each, which leaves a model (and what it came from) in a folder.

Such a folder holds `model.mnn`; `float.mnn` if the model was not quantized from the source's own float model; the
params file; and the record of the calibration.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pytest_mnnquant.measurements.calibration import Record
from pytest_mnnquant.quantize.int8 import quantize_int8
from pytest_mnnquant.quantize.job import MODEL_NAME, Job, QuantizerOutput, modules_to_skip
from pytest_mnnquant.quantize.mnnquant import quantize_offline
from pytest_mnnquant.quantize.pipeline_quantizer import quantize_with_pipeline
from pytest_mnnquant.quantize.record import save_record
from pytest_mnnquant.quantize.weight_only import quantize_weights
from pytest_mnnquant.recipes.mnn_support import is_skipped
from pytest_mnnquant.recipes.recipe import Quantizer
from pytest_mnnquant.runtime.inference import BATCH


def quantize_with_mnnquant(job: Job, folder: Path) -> QuantizerOutput:
    """MNN's own offline quantization, fed with the user's calibration data."""
    assert job.data is not None  # `make_variant` has refused a recipe that needs data and has none.
    model, recipe = job.source.model, job.recipe
    modules = modules_to_skip(job)
    skip = tuple(op.name for op in model.convolutions if is_skipped(op, job.skip, modules.get(op.name, "")))
    arguments = quantize_offline(
        model,
        job.data,
        folder / MODEL_NAME,
        feature=recipe.feature,
        weight=recipe.weight,
        skip=skip,
        options=job.options,
    )
    save_record(Record(recipe.name, arguments["samples"], BATCH), folder)
    return QuantizerOutput(modules=modules, arguments=arguments)


QUANTIZERS: Final[dict[Quantizer, Callable[[Job, Path], QuantizerOutput]]] = {
    Quantizer.CONVERTER: quantize_weights,
    Quantizer.BUILTIN: quantize_int8,
    Quantizer.MNNQUANT: quantize_with_mnnquant,
    Quantizer.MNNCOMPRESS: quantize_with_pipeline,
    Quantizer.PIPELINE: quantize_with_pipeline,
}
