"""Other people's quantizers end in variants like our own, each with what it came from."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.checks.coverage.check import coverage, layer_rows
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.params import read_params
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.sources.spec import DataError, SourceError, Spec
from tests.conftest import FIXTURES, TIMEOUT, quietly

CHOICES = Choices(FIXTURES, timeout=TIMEOUT)
needs_mnncompress = pytest.mark.skipif(
    importlib.util.find_spec("mnncompress") is None, reason="pip install pytest-mnnquant[mnncompress]"
)


def made(source: Prepared, store: Store, recipe: str, skip: tuple[str, ...] = ()) -> Variant:
    asked = recipe_named(recipe)
    return make_variant(Job(source, asked, asked.modes(True, ("eval",))[0], skip, CHOICES), store, quietly)


def share(variant: Variant) -> float:
    rows = layer_rows(match_layers(variant.base, variant.model), variant.recipe, lambda _op: False)
    return coverage(rows)


@needs_mnncompress
def test_what_mnncompress_loses_by_name_is_bound_again(digits: Prepared, store: Store) -> None:
    """The Linear before a ReLU holds 81 % of the weights, and MNN gives its name to another operator."""
    plain, repaired = made(digits, store, "mnncompress"), made(digits, store, "mnncompress-repaired")
    assert share(plain) < 0.2
    assert share(repaired) == 1.0
    assert repaired.params is not None
    assert read_params(repaired.params).uuid == repaired.model.uuid
    assert repaired.record is not None
    assert repaired.record.observations is not None
    assert repaired.record.observations.forwards == repaired.record.observations.handed_out > 1
    assert repaired.record.observer == "average0.99"
    assert repaired.provenance["versions"]["mnncompress"]
    assert repaired.provenance["maker"] == "mnncompress"


@needs_mnncompress
def test_layers_to_skip_are_left_out_of_mnncompresss_params(digits: Prepared, store: Store) -> None:
    variant = made(digits, store, "mnncompress-repaired", skip=("classifier.2",))
    labels = [op.weights[0].label for op in variant.model.layers]
    assert labels == ["int8", "int8", "float32", "int8"]


def test_mnnquant_is_fed_our_data_and_leaves_a_record(digits: Prepared, store: Store) -> None:
    variant = made(digits, store, "mnnquant-kl", skip=("features.0",))
    assert [op.weights[0].label for op in variant.model.layers] == ["float32", "int8", "int8", "int8"]
    assert digits.calibration is not None
    assert variant.record is not None
    assert variant.record.samples == digits.calibration.samples
    assert variant.provenance["arguments"]["config"]["feature_quantize_method"] == "KL"
    assert variant.params is None


@pytest.mark.parametrize("recipe", ["mnncompress", "ours=anything.py:quantize"])
def test_pytorch_pipelines_need_a_pytorch_source(digits: Prepared, store: Store, recipe: str) -> None:
    with pytest.raises(SourceError, match="needs a PyTorch source"):
        made(dataclasses.replace(digits, network=None, digest="of a file"), store, recipe)


BUILD = """
import torch


def broken_params(model, calibration, mode, outdir):
    (x,) = next(iter(calibration))
    torch.onnx.export(model, (x,), "net.onnx", dynamo=False, input_names=["x"], output_names=["output"])
    with open("params.bin", "wb") as file:
        file.write(b"\\xff not params")
    return {"onnx": "net.onnx", "params": "params.bin"}
"""


def test_a_pipelines_broken_params_file_is_left_to_the_checks(digits: Prepared, store: Store, tmp_path: Path) -> None:
    """MNN converts to float without a word; that is what the pipeline's users ship."""
    (tmp_path / "build.py").write_text(BUILD)
    choices = Choices(tmp_path, timeout=TIMEOUT)
    asked = recipe_named("ours=build.py:broken_params")
    variant = make_variant(Job(digits, asked, "eval", ("*features.0*",), choices), store, quietly)
    assert {op.weights[0].label for op in variant.model.layers} == {"float32"}
    assert variant.params is not None
    assert variant.params.name == "params.bin"


class Logarithm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layer(torch.log(x))
        return scores


def test_calibration_data_that_make_a_tensor_nan_are_named(store: Store) -> None:
    good = np.random.default_rng(0).uniform(1, 2, (64, 4)).astype(np.float32)
    bad = good.copy()
    bad[40] = -1
    choices = Choices(FIXTURES, {"x": bad}, {"x": good}, timeout=TIMEOUT)
    source = prepare(Spec("log", "log"), choices, store, quietly, given=Logarithm())
    with pytest.raises(DataError, match="is NaN or infinite in batch 1 of the calibration data"):
        make_variant(Job(source, recipe_named("int8"), "eval", (), choices), store, quietly)
