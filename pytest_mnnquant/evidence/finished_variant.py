"""The variant that a user's build made: a finished file, with its params file if there is one."""

from __future__ import annotations

from pathlib import Path

from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.steps import Unusable
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.quantize.job import PARAMS_NAME
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.recipe import Recipe


def finished_variant(settings: ModelSettings, recipe: Recipe, source: Prepared) -> Variant:
    """The variant that a user's build made (--mnn-quantized). Raises `Unusable` if the file is missing."""
    path = settings.base / str(settings.quantized)
    if not path.is_file():
        finding = Finding(
            "MNQ202",
            f"{settings.quantized}: no such file",
            cause=Cause(
                "converter-wrote-nothing", "the converter exits 0 and prints Success even when it writes nothing"
            ),
            fix="check the output of the converter, and whether the folder is writable",
        )
        raise Unusable(finding)
    model = read_model(path)
    if settings.params is not None:
        params: Path | None = settings.base / settings.params
    else:
        usual_path = path.with_name(PARAMS_NAME)
        params = usual_path if usual_path.is_file() and recipe.activations else None
    return Variant(recipe, None, model, source.model, params, given=True)
