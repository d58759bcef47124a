"""Quantizes weights only, by flags of MNN's converter."""

from __future__ import annotations

from pathlib import Path

from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.params import LayerParams, Params, WeightParams, write_params
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.job import MODEL_NAME, Job, QuantizerOutput, modules_to_skip
from pytest_mnnquant.recipes.mnn_support import is_skipped
from pytest_mnnquant.sources.spec import SourceError


def quantize_weights(job: Job, folder: Path) -> QuantizerOutput:
    """Run the converter with the recipe's flags, and with bits 0 for layers that stay float."""
    model, flags = job.source.model, job.recipe.flags
    modules = modules_to_skip(job)
    skipped = float_entries(model, job.skip, modules)
    if skipped and "--fp16" in flags:
        raise SourceError("fp16: MNN converts all layers, so none can stay float; remove --mnn-skip-layer")
    if skipped:
        write_params(Params(skipped, model.uuid), folder / "left_float.bin")
        flags = (*flags, "--compressionParamsFile", str(folder / "left_float.bin"))
    convert_twice(model.path, folder / MODEL_NAME, flags, timeout=job.choices.timeout)
    return QuantizerOutput(modules=modules, arguments=["mnnconvert", "-f", "MNN", *job.recipe.flags])


def float_entries(model: Model, skip: tuple[str, ...], modules: dict[str, str]) -> tuple[LayerParams, ...]:
    """Entries of a params file that keep layers float when weights are quantized."""
    return tuple(
        LayerParams(WeightParams(op.name, bits=0), op_name=op.name, subgraph=op.subgraph)
        for op in model.layers
        if op.is_convolution and is_skipped(op, skip, modules.get(op.name, ""))
    )
