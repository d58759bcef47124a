"""Variants: quantized models, each made from a prepared source, a recipe and a mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.cache.store import Store, versions
from pytest_mnnquant.measurements.calibration import Record
from pytest_mnnquant.measurements.conversion import Step
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.job import FLOAT_NAME, Job, QuantizerOutput, load_output, save_output
from pytest_mnnquant.quantize.quantizers import quantize
from pytest_mnnquant.quantize.re_export import load_chain
from pytest_mnnquant.quantize.record import load_record
from pytest_mnnquant.recipes.recipe import PipelineRecipe, Recipe
from pytest_mnnquant.sources.spec import SourceError


@dataclass(frozen=True)
class Variant:
    """One quantized model and its origin.

    `base` is the float model that it was quantized from: the source's, or one that was exported for this variant
    (calibration in train mode changes statistics; BatchNorms that MNN does not fold are exported as multiply and add).
    `given` is True for a file that the user's build made. `drift`: see `Calibrated`. `modules` gives the PyTorch module
    of each layer, if known. `chain` proves a `base` that was exported for this variant against the calibrated network.
    `left_float`: globs of layers that the recipe itself left float (`int8-best`).
    `provenance` records how it was made: tool, versions, arguments, hashes of source, float model, calibration data and
    params file.
    """

    recipe: Recipe
    mode: str | None
    model: Model
    base: Model
    params: Path | None = None
    given: bool = False
    drift: float = 0.0
    modules: dict[str, str] = field(default_factory=dict)
    record: Record | None = None
    chain: tuple[Step, ...] = ()
    left_float: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """`int8-train`, `w8`, ..."""
        return self.recipe.label(self.mode)


def make_variant(job: Job, store: Store, say: Callable[[str], None]) -> Variant:
    """Quantize, or load the result of the same job from the store.

    Raises `SourceError` (no calibration data, a recipe that this model does not support) or `NativeFailure`.
    """
    source, recipe, mode, data = job.source, job.recipe, job.mode, job.data
    if recipe.activations and data is None:
        raise SourceError(
            f"{source.spec.text}: {recipe.name} needs calibration data: give --mnn-calibration"
            + (", or define calibration() in the file of the model" if source.spec.is_python else "")
        )
    pipeline = recipe.pipeline if isinstance(recipe, PipelineRecipe) else ""
    inputs: dict[str, Any] = {
        "float": source.digest,
        "float_uuid": source.model.uuid,
        "exporter": job.choices.exporter,
        "recipe": (recipe.name, pipeline),
        "mode": mode,
        "skip": job.skip,
        "data": data.digest() if data else None,
    }
    say(f"calibrating on {data.samples} samples" + (f" in {mode} mode" if mode else "") if data else "converting")

    def build(folder: Path) -> None:
        save_output(quantize(job, folder), folder)

    # The dependencies of a custom pipeline are unknown, so it runs again in each session.
    folder = store.folder("variant", inputs, build, private=bool(pipeline))
    return _loaded(job, folder, inputs["data"])


def _loaded(job: Job, folder: Path, data_digest: str | None) -> Variant:
    output = load_output(folder)
    base = read_model(folder / FLOAT_NAME) if (folder / FLOAT_NAME).exists() else job.source.model
    params = folder / output.params if output.params else None
    return Variant(
        job.recipe,
        job.mode,
        read_model(folder / output.model),
        base,
        params,
        drift=output.drift,
        modules=output.modules,
        record=load_record(folder),
        chain=load_chain(folder),
        provenance=_provenance(job, base, params, output, data_digest),
    )


def _provenance(
    job: Job, base: Model, params: Path | None, output: QuantizerOutput, data_digest: str | None
) -> dict[str, Any]:
    return {
        "maker": job.recipe.quantizer.value,
        "versions": versions(),
        "arguments": output.arguments,
        "mode": job.mode,
        "skipped": list(job.skip),
        "transformations": output.transformations,
        "source": {"spec": job.source.spec.text, "sha256": job.source.digest},
        "float": {"path": str(base.path), "sha256": file_digest(base.path)},
        "calibration": {"origin": job.data.origin, "samples": job.data.samples, "sha256": data_digest}
        if job.data
        else None,
        "params": {"path": str(params), "sha256": file_digest(params)} if params else None,
    }
