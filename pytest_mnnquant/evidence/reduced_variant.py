"""A variant with some layers left float, made from the params file of another one: without a new calibration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.mnnfile.entries import without
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.params import BadParams, read_params, write_params
from pytest_mnnquant.quantize.described_tensors import describe_tensors
from pytest_mnnquant.quantize.job import MODEL_NAME, PARAMS_NAME
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.recipe import Int8Recipe
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.jobs import NativeFailure


def reduced_variant(parent: VariantUnderTest, names: tuple[str, ...]) -> Variant | None:
    """The variant of `parent` with the named layers left float; None if its params file can't be used for that."""
    variant, source = parent.variant, parent.source
    if variant.params is None or not parent.recipe.activations:
        return None
    try:
        params = without(read_params(variant.params), variant.base, names)
    except (BadParams, OSError):
        return None

    data = source.prepared.calibration or source.prepared.evaluation
    options = source.prepared.options(source.settings.timeout)
    observer = parent.recipe.observer if isinstance(parent.recipe, Int8Recipe) and not variant.given else None

    def build(folder: Path) -> None:
        write_params(params, folder / PARAMS_NAME)
        flags = ("--compressionParamsFile", str(folder / PARAMS_NAME))
        convert(variant.base.path, folder / MODEL_NAME, flags, timeout=source.settings.timeout)
        if observer is not None and data is not None:
            describe_tensors(folder / MODEL_NAME, variant.base, {}, data, options, observer)

    observed = observer and data and [data.digest(), repr(observer), options.batched, repr(options.axes)]
    inputs = {
        "base": file_digest(variant.base.path),
        "params": file_digest(variant.params),
        "without": names,
        "observed": observed,
    }
    try:
        folder = source.store.folder("reduced", inputs, build)
    except NativeFailure:
        return None
    return dataclasses.replace(variant, model=read_model(folder / MODEL_NAME), params=folder / PARAMS_NAME)
