"""Transformations of a float model that bring the outputs of its int8 model closer, each used only if it does."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Final

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.entries import bind_by_name
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.params import Params
from pytest_mnnquant.mnnfile.rewriting import with_values
from pytest_mnnquant.mnnfile.storage import Floats
from pytest_mnnquant.quantize.bias_correction import corrected_biases
from pytest_mnnquant.quantize.calibration import save_params
from pytest_mnnquant.quantize.conversion_proof import PROOF_SAMPLES, output_error
from pytest_mnnquant.quantize.equalization import equalize
from pytest_mnnquant.quantize.int8_plan import Plan, convert_plan, params_of, plan_ranges
from pytest_mnnquant.quantize.job import FLOAT_NAME, MODEL_NAME, PARAMS_NAME, Job, Transformation
from pytest_mnnquant.quantize.propagation import find_propagated, ops_to_observe
from pytest_mnnquant.quantize.ranges import calibrate_runtime
from pytest_mnnquant.quantize.weight_rounding import rounded_by_output
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.recipes.recipe import Int8Recipe

#: A float model that was exported again for a variant, if it is rewritten afterwards.
_EXPORTED_NAME: Final = "exported.mnn"
#: The int8 model that is made from rewritten weights and biases.
_CANDIDATE_NAME: Final = "candidate.mnn"
#: The float model with rewritten weights and biases.
_REWRITTEN_NAME: Final = "rewritten.mnn"
#: Added operators take time and space: the error must fall to less than this share.
_WORTH_OPERATORS: Final = 0.9
#: A quarter of the calibration samples decides about an equalization, and has no part in it.
_UNSEEN: Final = 4


def equalized_plan(job: Job, recipe: Int8Recipe, plan: Plan, data: Dataset, folder: Path) -> Plan:
    """The plan with an equalized float model, whose ranges are those of MNN's float run: no PyTorch value has them.

    It is used only if it is better on samples that neither its factors nor its ranges come from: on its own samples
    each channel of an equalized tensor just fits into the range, and on others it is clipped.
    """
    if plan.model.path == folder / FLOAT_NAME:  # The float model was exported again for this variant.
        plan = dataclasses.replace(plan, model=read_model(plan.model.path.rename(folder / _EXPORTED_NAME)))
    seen, unseen = data.split(min(PROOF_SAMPLES, data.samples // _UNSEEN))
    made = equalize(plan.model, seen, job.options, folder / FLOAT_NAME, scaled=recipe.scaled)
    suffix = "scaled" if recipe.scaled else "equalized"
    if made.model is plan.model:
        return _restored(plan, Transformation(suffix, made.layers, made.is_refused), folder)
    tried = (_calibrated_again(job, recipe, plan, model, seen) for model in (plan.model, made.model))
    before, after = (_error(job, recipe, item, unseen, folder) for item in tried)
    if after < before * (_WORTH_OPERATORS if recipe.scaled else 1):
        equalized = _calibrated_again(job, recipe, plan, made.model, data)
        return dataclasses.replace(equalized, transformations=(Transformation(suffix, made.layers),))
    return _restored(plan, Transformation(suffix, made.layers, is_refused=True), folder)


def _calibrated_again(job: Job, recipe: Int8Recipe, plan: Plan, model: Model, data: Dataset) -> Plan:
    """The plan for a model that computes the same, with ranges of MNN's float run."""
    layers = int8_layers(model)
    links = find_propagated(model, layers)
    seen = calibrate_runtime(model, ops_to_observe(model, layers, links), data, job.options, recipe.observer)
    calibrated = dataclasses.replace(plan.calibrated, ranges=seen.ranges, batches=seen.batches)
    ranges = plan_ranges(model, layers, links, calibrated)
    return dataclasses.replace(plan, model=model, calibrated=calibrated, ranges=ranges)


def _restored(plan: Plan, done: Transformation, folder: Path) -> Plan:
    """The plan with its float model back in its place, after a transformation that was not used."""
    (folder / FLOAT_NAME).unlink(missing_ok=True)
    model = plan.model
    if model.path == folder / _EXPORTED_NAME:
        model = read_model(model.path.rename(folder / FLOAT_NAME))
    return dataclasses.replace(plan, model=model, transformations=(done,))


def _error(job: Job, recipe: Int8Recipe, plan: Plan, data: Dataset, folder: Path) -> float:
    """The error of the outputs of a plan's int8 model."""
    path = save_params(params_of(job, plan), folder / PARAMS_NAME)
    convert_plan(job, recipe, plan, plan.model, folder / _CANDIDATE_NAME, ("--compressionParamsFile", str(path)))
    return output_error(plan.model, read_model(folder / _CANDIDATE_NAME), data.inputs, job.options)


def improved_plan(
    job: Job, recipe: Int8Recipe, plan: Plan, params: Params, folder: Path, arguments: tuple[str, ...]
) -> Plan:
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
        rewritten, path = folder / _REWRITTEN_NAME, folder / _CANDIDATE_NAME
        rewritten.write_bytes(with_values(plan.model, candidate, shifts))
        if changed:
            convert_plan(job, recipe, plan, read_model(rewritten), path, arguments)
        made = output_error(plan.model, read_model(path), samples, job.options) if changed else math.inf
        is_used = made < error
        if is_used:
            path.replace(folder / MODEL_NAME)
            error, weights = made, candidate
        done = (*done, Transformation(suffix, tuple(changed), bool(changed) and not is_used))
    return dataclasses.replace(plan, transformations=done)


def remove_tried(folder: Path) -> None:
    """Remove the models that were only needed to decide, which are as large as the variant."""
    for name in (_EXPORTED_NAME, _CANDIDATE_NAME, _REWRITTEN_NAME):
        (folder / name).unlink(missing_ok=True)
