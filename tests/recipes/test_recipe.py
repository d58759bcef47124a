"""A recipe knows what it asked for when it sees it stored."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_mnnquant.mnnfile.storage import Storage, Weights
from pytest_mnnquant.recipes.names import RECIPES, recipe_named, with_suffixes
from pytest_mnnquant.recipes.recipe import (
    MODES,
    Int8Recipe,
    MnncompressRecipe,
    MnnquantRecipe,
    Observer,
    PipelineRecipe,
    Quantizer,
    Recipe,
    is_exporter,
)
from tests.golden_text import check_golden
from tests.synthetic_evidence import stored

INT8 = stored(64, Storage.INTEGER, 8, full_int8=True)
W8 = stored(64, Storage.INTEGER, 8)
W4 = stored(64, Storage.INTEGER, 4, block=32)
FP16 = stored(64, Storage.FLOAT16, 16)
FLOAT = stored(64)
BROKEN = stored(64, Storage.INTEGER, 8, full_int8=True, intact=False)
SPARSE = stored(64, Storage.SPARSE_INTEGER, 8)


@pytest.mark.parametrize(
    ("recipe", "accepted"),
    [("int8", [INT8]), ("w8", [INT8, W8, SPARSE]), ("w4", [W4]), ("fp16", [FP16])],
)
def test_only_the_asked_precision_counts(recipe: str, accepted: list[Weights]) -> None:
    everything = [INT8, W8, W4, FP16, FLOAT, BROKEN, SPARSE]
    assert [weights for weights in everything if RECIPES[recipe].stores(weights)] == accepted


def test_only_recipes_that_calibrate_in_pytorch_have_modes() -> None:
    assert RECIPES["int8"].modes(True, MODES) == ("train", "eval")
    assert RECIPES["int8"].modes(True, ("eval",)) == ("eval",)
    assert RECIPES["int8"].modes(False, MODES) == (None,)
    assert RECIPES["w8"].modes(True, MODES) == (None,)


def test_what_is_asked_is_told_in_words() -> None:
    words = {name: recipe.weight_kind for name, recipe in RECIPES.items()}
    assert words["w8"] == "8-bit weights"
    check_golden("recipes/in-words", "\n".join(f"{name}: {text}" for name, text in words.items()))
    assert words["fp16"] == "16-bit float weights"
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    assert recipe_named("w4-sym").weight_kind == "symmetric 4-bit weights"


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("w2", "--weightQuantBits 2"),
        ("w4b32-hqq", "--weightQuantBits 4 --weightQuantBlock 32 --hqq"),
        ("w8-sym-scale16", "--weightQuantBits 8 --weightQuantAsymmetric=0 --weightQuantScaleBit 16"),
        ("fp16", "--fp16"),
    ],
)
def test_names_of_the_converters_recipes_are_its_flags(name: str, flags: str) -> None:
    recipe = recipe_named(name)
    assert (recipe.quantizer, recipe.name) == (Quantizer.CONVERTER, name)
    assert " ".join(recipe.flags) == flags
    assert not recipe.activations


def test_names_of_calibrated_recipes_say_how() -> None:
    assert recipe_named("int8") == Int8Recipe(name="int8")
    filled = "int8-percentile99.9+w4"
    assert recipe_named(filled) == Int8Recipe(name=filled, observer=Observer("percentile", 99.9), fill=4)
    offline = recipe_named("mnnquant-ema-admm")
    assert offline == MnnquantRecipe(name="mnnquant-ema-admm", feature="EMA", weight="ADMM")
    assert offline.modes(True, MODES) == (None,)
    assert recipe_named("mnncompress-repaired") == MnncompressRecipe(name="mnncompress-repaired", repaired=True)
    assert recipe_named("mnncompress").modes(True, MODES) == MODES


def test_a_pipeline_is_judged_by_what_it_is_meant_to_make() -> None:
    plain = recipe_named("tools/ours.py:quantize")
    assert isinstance(plain, PipelineRecipe)
    assert (plain.name, plain.pipeline) == ("tools/ours.py:quantize", "tools/ours.py:quantize")
    assert (plain.quantizer, plain.bits, plain.activations) == (Quantizer.PIPELINE, 8, True)
    named = recipe_named("ours=tools/ours.py:quantize@w4b32")
    assert isinstance(named, PipelineRecipe)
    assert (named.name, named.pipeline, named.bits, named.block) == ("ours", "tools/ours.py:quantize", 4, 32)
    assert named.flags == recipe_named("w4b32").flags


def test_a_pipeline_that_exports_a_language_model_names_its_form() -> None:
    recipe = recipe_named("mine=export.py:pipeline@llm-w4b64-scale16")
    assert isinstance(recipe, PipelineRecipe)
    assert is_exporter(recipe)
    assert (recipe.name, recipe.like) == ("mine", recipe_named("w4b64-scale16"))
    assert not is_exporter(recipe_named("export.py:pipeline@w4b64"))
    for name in ("export.py:pipeline@llm-int8", "export.py:pipeline@llm-", "llm-w4b64"):
        with pytest.raises(ValueError, match=r"llm-|unknown recipe"):
            recipe_named(name)


def test_a_pipeline_has_what_the_recipe_that_it_is_like_has() -> None:
    for name in ("w4b32-hqq", "w8-sym-scale16", "fp16", "int8-kl+w4", "mnnquant-ema", "mnncompress-repaired"):
        like, pipeline = recipe_named(name), recipe_named(f"own.py:f@{name}")
        for field in dataclasses.fields(Recipe):
            if field.name != "name":
                assert getattr(pipeline, field.name) == getattr(like, field.name)
        assert (pipeline.flags, pipeline.weight_kind) == (like.flags, like.weight_kind)
        assert pipeline.trains_vectors == like.trains_vectors == (name == "mnnquant-ema")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("w9", "'w9'.* int8, "),
        ("w1", "'w1'"),
        ("W8", "'W8'"),
        ("int4", "'int4'"),
        ("", "''"),
        ("w4-sym-hqq", "-sym .* -hqq"),
        ("int8-kl99", "kl"),
        ("int8-percentile20", "50 .* 100"),
        ("int8-average1", "average .* 0 "),
        ("w8=ours.py:f", "'w8=ours.py:f': 'w8'"),
        ("plain-train=ours.py:f", "'plain-train=ours.py:f': .*mode"),
        ("ours.py:f@nothing", "'nothing'"),
        ("ours.py:f@other.py:g", "@other.py:g': .*@"),
    ],
)
def test_an_unknown_name_is_an_error_that_shows_the_known_ones(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        recipe_named(name)


def test_a_layer_that_can_not_compute_in_int8_is_filled_with_weights_of_few_bits() -> None:
    recipe = recipe_named("int8+w8")
    assert recipe.stores(INT8)
    assert not recipe.stores(W8)
    assert recipe.stores(W8, computes=False)
    assert not recipe.stores(FLOAT, computes=False)
    assert not recipe_named("int8").stores(W8, computes=False)


@pytest.mark.parametrize(
    ("name", "symmetric_name"),
    [("w8", "w8-sym"), ("w4b32-hqq", "w4b32-sym"), ("w8-scale16", "w8-sym-scale16"), ("w8-sym", ""), ("int8", "")],
)
def test_the_same_with_symmetric_weights(name: str, symmetric_name: str) -> None:
    assert recipe_named(name).symmetric_name == symmetric_name
    if symmetric_name:
        assert recipe_named(symmetric_name).symmetric


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("int8", "int8+equalized"),
        ("int8+scaled+corrected+rounded", "int8+scaled+corrected+rounded"),
        ("int8-percentile99.9+corrected+w8", "int8-percentile99.9+equalized+corrected+w8"),
        ("int8-kl+equalized+w4", "int8-kl+equalized+w4"),
    ],
)
def test_suffixes_are_combined_in_their_order(name: str, changed: str) -> None:
    recipe = recipe_named(name)
    assert isinstance(recipe, Int8Recipe)
    assert with_suffixes(recipe, equalized=True).name == changed
    assert with_suffixes(recipe, observer="average").name == f"int8-average{name[len(name.split('+')[0]) :]}"


def test_only_corrected_biases_may_differ() -> None:
    assert recipe_named("int8-kl+corrected").trains_vectors
    assert not recipe_named("int8-kl+equalized").trains_vectors
