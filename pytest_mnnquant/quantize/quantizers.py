"""Chooses the quantizer of a recipe. Each writes its files into a folder.

The folder holds `model.mnn`; `float.mnn` if the model was not quantized from the source's float model; the params file;
and the record of the calibration.
"""

from __future__ import annotations

from pathlib import Path

from pytest_mnnquant.quantize.int8 import quantize_int8
from pytest_mnnquant.quantize.job import Job, QuantizerOutput
from pytest_mnnquant.quantize.mnnquant import quantize_with_mnnquant
from pytest_mnnquant.quantize.pipeline_quantizer import quantize_with_pipeline
from pytest_mnnquant.quantize.weight_only import quantize_weights
from pytest_mnnquant.recipes.recipe import BestRecipe, Int8Recipe, MnncompressRecipe, MnnquantRecipe, PipelineRecipe
from pytest_mnnquant.sources.spec import SourceError


def quantize(job: Job, folder: Path) -> QuantizerOutput:
    """Quantize by the job's recipe into `folder`. Raises `SourceError` or `NativeFailure`."""
    recipe = job.recipe
    if isinstance(recipe, BestRecipe):
        raise SourceError(f"{recipe.name} is chosen by the accuracy of a gate's run; give a recipe such as int8")
    if isinstance(recipe, Int8Recipe):
        return quantize_int8(job, recipe, folder)
    if isinstance(recipe, MnnquantRecipe):
        return quantize_with_mnnquant(job, recipe, folder)
    if isinstance(recipe, MnncompressRecipe | PipelineRecipe):
        return quantize_with_pipeline(job, recipe, folder)
    return quantize_weights(job, folder)
