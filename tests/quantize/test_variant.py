"""Variants: the real thing, made from the shipped models, with every layer as asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.metrics.agreement import accuracy
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.params import read_params
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.mnn_support import is_skipped
from pytest_mnnquant.recipes.names import RECIPES, recipe_named
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import SourceError, Spec, parse_spec
from tests.conftest import FIXTURES, TIMEOUT, quietly
from tests.smallnets import Words
from tests.synthetic_evidence import layer
from tests.workshop import Workshop

CHOICES = Choices(FIXTURES, timeout=TIMEOUT)
VARIANTS = [("int8", "train"), ("int8", "eval"), ("w8", None), ("w4", None), ("fp16", None)]


@pytest.mark.parametrize(("recipe", "mode"), VARIANTS)
@pytest.mark.parametrize("name", ["digits_cnn", "garment_classifier"])
def test_every_layer_is_stored_as_the_recipe_asks(workshop: Workshop, name: str, recipe: str, mode: str | None) -> None:
    """The Linear layers before a ReLU are those that matching by name loses."""
    variant = workshop.variant(name, recipe, mode)
    assert variant.label == recipe + (f"-{mode}" if mode else "")
    found = match_layers(variant.base, variant.model)
    assert len(found.pairs) == len(variant.base.layers) == len(workshop.prepared(name).model.layers)
    for _, stored in found.pairs:
        assert all(RECIPES[recipe].stores(weights) for weights in stored.weights), stored.name
    assert (variant.params is not None) == (recipe == "int8")
    assert not variant.given


@pytest.mark.parametrize(
    ("name", "recipe", "mode"), [("mobile_net", "int8", "eval"), ("tiny_transformer", "int8", "eval")]
)
def test_int8_keeps_the_accuracy_of_the_harder_models(
    workshop: Workshop, name: str, recipe: str, mode: str | None
) -> None:
    source, variant = workshop.prepared(name), workshop.variant(name, recipe, mode)
    data = source.evaluation
    assert data is not None
    assert data.labels is not None
    convolutions = [op for op in variant.model.layers if op.is_convolution]
    assert all(RECIPES[recipe].stores(op.weights[0]) for op in convolutions)
    figures = [
        accuracy(run(model, data.inputs, RunOptions(TIMEOUT)).outputs["output"], data.labels)
        for model in (source.model, variant.model)
    ]
    assert figures[0] > 0.98
    assert figures[0] - figures[1] < 0.01


def test_train_mode_has_a_float_model_and_params_of_its_own(workshop: Workshop) -> None:
    in_train, in_eval = (workshop.variant("digits_cnn", "int8", mode) for mode in ("train", "eval"))
    assert in_train.drift > 0
    assert in_eval.drift == 0
    assert in_train.base.path != in_eval.base.path
    assert in_train.params is not None
    assert in_eval.params is not None
    assert in_train.params.read_bytes() != in_eval.params.read_bytes()
    assert read_params(in_eval.params).uuid == in_eval.model.uuid


def test_modules_are_told_for_layers(digits: Prepared, digits_int8: Variant) -> None:
    assert digits.network is not None
    names = dict(digits.network.named_modules())
    assert [digits_int8.modules[op.name] for op in digits.model.layers] == [
        "features.0",  # though its output in MNN is that of the ReLU after it
        "features.4",
        "classifier.2",
        "classifier.4",
    ]
    assert all(name in names for name in digits_int8.modules.values())


def test_a_skipped_layer_stays_float_and_out_of_the_params(digits: Prepared, store: Store) -> None:
    variant = make_variant(
        Job(digits, RECIPES["int8"], "eval", ("classifier.4", "*features.0*"), CHOICES), store, quietly
    )
    labels = [op.weights[0].label for op in variant.model.layers]
    assert labels == ["float32", "int8", "int8", "float32"]
    assert variant.params is not None
    assert len(read_params(variant.params).layers) == 2


@pytest.mark.parametrize(
    ("pattern", "module", "skipped"),
    [
        ("conv", "", True),
        ("co*", "", True),
        ("conv:out", "", True),
        ("features.*", "features.2", True),
        ("features.*", "", False),
        ("CONV", "", False),
        ("onv", "", False),
        ("", "", False),
    ],
)
def test_layers_are_skipped_by_name_output_or_module(pattern: str, module: str, skipped: bool) -> None:
    assert is_skipped(layer("conv"), (pattern,), module) is skipped
    assert is_skipped(layer("conv"), ("other", pattern), module) is skipped
    assert not is_skipped(layer("conv"), (), module)


@pytest.mark.parametrize("recipe", ["w8", "w4b32-hqq", "int8+w8"])
def test_a_skipped_layer_stays_float_under_every_recipe_of_integers(
    digits: Prepared, store: Store, recipe: str
) -> None:
    first = digits.model.layers[0].name
    asked = recipe_named(recipe)
    mode = asked.modes(True, ("eval",))[0]
    variant = make_variant(Job(digits, asked, mode, (first,), CHOICES), store, quietly)
    labels = [op.weights[0].label for op in variant.model.layers]
    assert labels[0] == "float32"
    assert "float32" not in labels[1:]
    np.testing.assert_array_equal(
        variant.model.decoded(variant.model.layers[0]), digits.model.decoded(digits.model.layers[0])
    )


def test_fp16_can_not_skip_a_layer(digits: Prepared, store: Store) -> None:
    with pytest.raises(SourceError, match=r"fp16: .*--mnn-skip-layer"):
        make_variant(Job(digits, RECIPES["fp16"], None, ("*",), CHOICES), store, quietly)
    make_variant(Job(digits, RECIPES["fp16"], None, ("no such layer",), CHOICES), store, quietly)


def test_the_same_variant_is_made_once_and_other_choices_make_another(digits: Prepared, store: Store) -> None:
    def made(**changes: tuple[str, ...]) -> Path:
        skip = changes.get("skip", ())
        return make_variant(Job(digits, RECIPES["int8"], "eval", skip, CHOICES), store, quietly).model.path

    assert made() == made()
    assert made(skip=("classifier.4",)) != made()
    assert digits.calibration is not None
    fewer = dataclasses.replace(digits.calibration, inputs=digits.calibration.head(32))
    other = dataclasses.replace(digits, calibration=fewer)
    assert make_variant(Job(other, RECIPES["int8"], "eval", (), CHOICES), store, quietly).model.path != made()


def test_without_calibration_data_only_weight_recipes_work(digits: Prepared, store: Store) -> None:
    bare = dataclasses.replace(digits, calibration=None)
    with pytest.raises(SourceError, match=r"int8 needs calibration data: give --mnn-calibration, or define calib"):
        make_variant(Job(bare, RECIPES["int8"], "eval", (), CHOICES), store, quietly)
    assert make_variant(Job(bare, RECIPES["fp16"], None, (), CHOICES), store, quietly).params is None


def test_when_every_layer_is_skipped_there_is_nothing_to_make(digits: Prepared, store: Store) -> None:
    with pytest.raises(SourceError, match=r"int8: .*--mnn-recipe=w8"):
        make_variant(Job(digits, RECIPES["int8"], "eval", ("*",), CHOICES), store, quietly)


def test_a_file_is_calibrated_on_mnns_own_run(digits: Prepared, store: Store, tmp_path: Path) -> None:
    """From the `.onnx` the result is the same as from PyTorch, up to rounding of the ranges."""
    assert digits.calibration is not None
    (tmp_path / "net.onnx").write_bytes(digits.model.path.with_suffix(".onnx").read_bytes())
    np.savez(tmp_path / "d.npz", x=digits.calibration.inputs["x"])
    choices = Choices(tmp_path, calibration="d.npz", timeout=TIMEOUT)
    source = prepare(parse_spec("net.onnx", tmp_path), choices, store, quietly)
    variant = make_variant(Job(source, RECIPES["int8"], None, (), choices), store, quietly)
    assert variant.label == "int8"
    reference = make_variant(Job(digits, RECIPES["int8"], "eval", (), CHOICES), store, quietly)
    for ours, theirs in zip(variant.model.layers, reference.model.layers, strict=True):
        (mine,), (other,) = ours.weights, theirs.weights
        assert mine.label == "int8"
        assert (mine.scale_in, mine.scale_out) == pytest.approx((other.scale_in, other.scale_out), rel=1e-3)
        np.testing.assert_array_equal(variant.model.decoded(ours), reference.model.decoded(theirs))


def test_a_recurrent_model_is_quantized_inside_its_loop_too(store: Store) -> None:
    torch.manual_seed(0)
    tokens = np.arange(24, dtype=np.int64).reshape(4, 6)
    choices = Choices(Path(), calibration={"tokens": tokens}, timeout=TIMEOUT)
    source = prepare(Spec("words", "words"), choices, store, quietly, given=Words())

    def labels(recipe: str, mode: str | None) -> dict[str, set[str]]:
        variant = make_variant(Job(source, recipe_named(recipe), mode, (), choices), store, quietly)
        inputs = {"tokens": tokens.astype(np.int32)}
        whole, quantized = (
            run(model, inputs, RunOptions(TIMEOUT)).outputs["output"] for model in (variant.base, variant.model)
        )
        assert np.abs(whole - quantized).max() < 0.05 * np.ptp(whole)
        layers = [op for op in variant.model.layers if op.is_convolution]
        return {
            "graph": {op.weights[0].label for op in layers if not op.subgraph},
            "body": {op.weights[0].label for op in layers if op.subgraph},
        }

    assert labels("w8", None) == {"graph": {"w8"}, "body": {"w8"}}
    assert labels("int8", "eval") == {"graph": {"int8"}, "body": {"int8"}}
    assert labels("int8-kl+w8", "eval") == {"graph": {"int8"}, "body": {"int8"}}
