"""A recipe knows what it asked for when it sees it stored."""

from __future__ import annotations

import pytest

from pytest_mnnquant.mnnfile.storage import Storage, Weights
from pytest_mnnquant.options import RECIPE_NAMES
from pytest_mnnquant.quantize.recipes import MODES, RECIPES
from tests.evidence import stored

INT8 = stored(64, Storage.INTEGER, 8, full_int8=True)
W8 = stored(64, Storage.INTEGER, 8)
W4 = stored(64, Storage.INTEGER, 4, block=32)
FP16 = stored(64, Storage.FLOAT16, 16)
FLOAT = stored(64)
BROKEN = stored(64, Storage.INTEGER, 8, full_int8=True, intact=False)
SPARSE = stored(64, Storage.SPARSE_INTEGER, 8)


@pytest.mark.parametrize(
    ("recipe", "accepted"),
    [("int8", [INT8]), ("w8", [INT8, W8]), ("w4", [W4]), ("fp16", [FP16])],
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
    assert words["int8"] == "8-bit weights and int8 activations"
    assert words["w8"] == "8-bit weights"
    assert words["w4b32"] == "4-bit weights in blocks of 32"
    assert words["fp16"] == "16-bit float weights"
    assert tuple(RECIPES) == RECIPE_NAMES  # The options name them without loading this package's reader.
    assert all(name == recipe.name for name, recipe in RECIPES.items())
