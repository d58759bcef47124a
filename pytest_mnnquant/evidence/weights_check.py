"""The weights check of a variant; if scales depend on addresses, it builds and runs recipes without this fault."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from pytest_mnnquant.checks.weights.check import check_weights
from pytest_mnnquant.checks.weights.scale_order import TriedRecipe, with_tried
from pytest_mnnquant.evidence.check_inputs import CheckInputs
from pytest_mnnquant.evidence.steps import UNUSABLE
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.defaults import COSINE
from pytest_mnnquant.findings.finding import Result, is_ignored
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.metrics.agreement import agreement
from pytest_mnnquant.mnnfile.scale_ambiguity import ambiguities
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.inference import run

_RECIPES: Final = ("int8", "mnnquant-kl")
_CODE: Final = "MNQ418"
_SAMPLES: Final = 32


def judge_weights(inputs: CheckInputs) -> Result:
    """Compare the weights with the source's; for address-dependent scales, propose recipes that were built and run."""
    variant, files = inputs.variant, inputs.variant.files
    result = check_weights(
        inputs.base, variant.model, files.match, files.days_older, inputs.recipe, files.convert_command
    )
    is_reported = any(finding.code == _CODE for finding in result.findings)
    if not is_reported or is_ignored(_CODE, variant.source.settings.ignore):
        return result
    data = _calibration_data(variant)
    if data is None:
        return with_tried(result, (), "quantizing the source needs calibration data (--mnn-calibration)")
    tried: list[TriedRecipe] = []
    failures: list[str] = []
    for name in (name for name in _RECIPES if name != variant.recipe.name):
        try:
            tried.append(_try_recipe(variant, name, data))
        except UNUSABLE as error:
            failures.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        if tried[-1].works and tried[-1].cosine >= COSINE:
            break
    return with_tried(result, tried, "; ".join(failures))


def _calibration_data(variant: VariantUnderTest) -> Dataset | None:
    """The calibration data of the source, else its evaluation data, which have the same ranges."""
    prepared = variant.source.prepared
    return prepared.calibration or prepared.evaluation


def _try_recipe(variant: VariantUnderTest, name: str, data: Dataset) -> TriedRecipe:
    """Quantize the variant's source by a recipe, and run the model through both APIs. Raises one of `UNUSABLE`."""
    source, recipe = variant.source, recipe_named(name)
    variant.say(f"trying --mnn-recipe={name}")
    prepared = dataclasses.replace(source.prepared, calibration=data)
    mode = "eval" if recipe.in_torch and prepared.network is not None else None
    made = make_variant(Job(prepared, recipe, mode, variant.skip, source.choices), source.store, variant.say)
    trial = VariantUnderTest(source, recipe, mode, variant.skip, data, made)
    samples = {key: array[:_SAMPLES] for key, array in source.inputs.items()}
    options = prepared.options(source.settings.timeout)
    exact = run(prepared.model, samples, options).outputs
    decibels, cosines = [], []
    with trial.runs.arm_equivalent() as (model, _):
        for through_module in (False, True):
            way = dataclasses.replace(options, through_module=through_module)
            pairs = zip(exact.values(), run(model, samples, way).outputs.values(), strict=True)
            outputs = [agreement(reference, made_values) for reference, made_values in pairs]
            decibels.append(min(item.sqnr_db for item in outputs))
            cosines.append(min((item.cosine for item in outputs if item.cosine is not None), default=1.0))
    difference = trial.runs.api_difference
    return TriedRecipe(
        name=name,
        session_db=decibels[0],
        module_db=decibels[1],
        cosine=float(np.min(cosines)),
        is_ambiguous=bool(ambiguities(trial.model)),
        apis_agree=difference is None or difference.is_rounding,
        on_evaluation=source.prepared.calibration is None,
    )
