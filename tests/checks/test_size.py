"""The size check: real variants have the expected size, and nothing else has."""

from __future__ import annotations

import dataclasses
import re

import pytest

from pytest_mnnquant.checks.coverage.check import LayerRow, layer_rows
from pytest_mnnquant.checks.size import check_size, expected_bytes, graph_growth
from pytest_mnnquant.findings.file_metrics import SizeMetrics
from pytest_mnnquant.findings.finding import FAILED, PASSED, Result
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.names import RECIPES
from tests.results import measured
from tests.synthetic_evidence import codes
from tests.workshop import Workshop

MODELS = ["digits_cnn", "mobile_net", "tiny_transformer", "garment_classifier"]
VARIANTS = [("int8", "eval"), ("w8", None), ("w4", None), ("fp16", None)]


def rows(variant: Variant) -> tuple[LayerRow, ...]:
    return layer_rows(match_layers(variant.base, variant.model), variant.recipe, lambda _op: False)


def check(variant: Variant, size: int | None = None, ratio: float | None = None) -> Result:
    size = variant.model.size if size is None else size
    return check_size(variant.base.size, size, rows(variant), variant.recipe, ratio)


@pytest.mark.parametrize(("recipe", "mode"), VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_real_variants_have_the_expected_size(workshop: Workshop, name: str, recipe: str, mode: str | None) -> None:
    variant = workshop.variant(name, recipe, mode)
    result = check(variant)
    assert result.outcome == PASSED
    figures = measured(SizeMetrics, result)
    assert figures.size_ratio == variant.base.size / variant.model.size
    assert figures.quantized_bytes == pytest.approx(figures.expected_bytes, rel=0.05)
    assert figures.expected_bytes == expected_bytes(variant.base.size, rows(variant), RECIPES[recipe])


@pytest.mark.parametrize("recipe", ["w8", "w4", "fp16"])
@pytest.mark.parametrize("other", ["w8", "w4", "fp16"])
def test_the_size_of_another_recipe_fails(workshop: Workshop, recipe: str, other: str) -> None:
    result = check(workshop.variant("digits_cnn", recipe), workshop.variant("digits_cnn", other).model.size)
    assert result.outcome == (PASSED if recipe == other else FAILED)
    assert codes(result) == ([] if recipe == other else ["MNQ801"])


@pytest.mark.parametrize(
    ("factor", "cause"), [(1.1, "layers-larger-than-requested"), (0.9, "layers-smaller-than-requested")]
)
def test_ten_percent_off_fails_and_says_which_way(digits_int8: Variant, factor: float, cause: str) -> None:
    result = check(digits_int8, int(digits_int8.model.size * factor))
    assert codes(result) == ["MNQ801"]
    assert result.findings[0].cause_id == cause


def test_the_float_model_is_no_quantized_one(digits_int8: Variant) -> None:
    result = check(digits_int8, digits_int8.base.size)
    assert codes(result) == ["MNQ801"]
    assert measured(SizeMetrics, result).size_ratio == 1


def test_a_required_ratio_decides_in_place_of_the_prediction(digits_int8: Variant) -> None:
    assert check(digits_int8, ratio=3.0).outcome == PASSED
    missed = check(digits_int8, ratio=3.99)
    assert codes(missed) == ["MNQ802"]
    assert "3.99x" in missed.findings[0].message
    limit = re.search(r"--mnn-min-size-ratio=([\d.]+)", missed.findings[0].fix)
    assert limit is not None
    assert check(digits_int8, ratio=float(limit[1])).outcome == PASSED
    assert "--mnn-recipe=w4" in missed.findings[0].fix
    assert check(digits_int8, digits_int8.base.size // 10, ratio=3.0).outcome == PASSED
    assert codes(check(digits_int8, digits_int8.base.size, ratio=1.5)) == ["MNQ802"]
    assert check(digits_int8, digits_int8.base.size, ratio=0.5).outcome == PASSED


def test_layers_that_are_to_stay_float_are_expected_float(digits_int8: Variant) -> None:
    largest, *others = rows(digits_int8)
    skipped = (dataclasses.replace(largest, wanted=False), *others)
    partly = check_size(digits_int8.base.size, digits_int8.model.size, skipped, digits_int8.recipe, None)
    assert codes(partly) == ["MNQ801"]
    size = digits_int8.model.size + largest.layer.weight_count * 3
    assert check_size(digits_int8.base.size, size, skipped, digits_int8.recipe, None).outcome == PASSED


def test_an_empty_file_has_no_ratio(digits_int8: Variant) -> None:
    result = check(digits_int8, 0)
    assert codes(result) == ["MNQ801"]
    assert measured(SizeMetrics, result).size_ratio == 0


def test_a_graph_that_mnnquant_wrote_again_may_be_larger(workshop: Workshop) -> None:
    """Described tensors and operators, not weights: a small network of many operators grows by more than 3 %."""
    ours, theirs = (
        workshop.variant("digits_cnn", recipe, mode) for recipe, mode in (("w8", None), ("mnnquant-kl", None))
    )
    assert graph_growth(ours.base, ours.model) == 0
    cast = dataclasses.replace(ours.model, ops=(*ours.model.ops, ours.model.ops[-1]))
    assert 0 < graph_growth(ours.base, cast) < 200
    growth = graph_growth(theirs.base, theirs.model)
    assert 0 < growth < 0.05 * theirs.model.size
    expected = expected_bytes(theirs.base.size, rows(theirs), theirs.recipe)
    arguments = (theirs.base.size, round(1.08 * expected), rows(theirs), theirs.recipe, None)
    assert codes(check_size(*arguments)) == ["MNQ801"]
    assert codes(check_size(*arguments, growth=expected // 10)) == []
    smaller = (theirs.base.size, round(0.9 * expected), rows(theirs), theirs.recipe, None)
    assert codes(check_size(*smaller, growth=expected // 10)) == ["MNQ801"]
