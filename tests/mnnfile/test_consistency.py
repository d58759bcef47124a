"""What a file says of a quantized tensor twice: in the layer and at the tensor."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from pytest_mnnquant.mnnfile.consistency import contradictions, impossible_scales
from pytest_mnnquant.mnnfile.model import Model
from tests.golden_text import check_golden, without_numbers
from tests.workshop import Workshop


@pytest.fixture
def model(workshop: Workshop) -> Model:
    return workshop.variant("digits_cnn", "int8", "eval").model


def changed(model: Model, layer: int, side: str, **values: Any) -> Model:
    """The model in which the description of a layer's input or output says something else; None takes it away."""
    op = model.convolutions[layer]
    index = (op.inputs if side == "input" else op.outputs)[0]
    quants = dict(model.tensor_quants)
    if values:
        quants[index] = dataclasses.replace(quants[index], **values)
    else:
        del quants[index]
    return dataclasses.replace(model, tensor_quants=quants)


@pytest.mark.parametrize("recipe", ["int8", "int8+w8", "mnnquant-kl", "mnnquant-ema", "w8"])
def test_what_the_tools_write_agrees(recipe: str, workshop: Workshop) -> None:
    mode = "eval" if recipe.startswith("int8") else None
    model = workshop.variant("digits_cnn", recipe, mode).model
    assert contradictions(model) == []
    assert impossible_scales(model) == []


def test_another_scale_of_the_tensor_is_told(model: Model) -> None:
    last = model.convolutions[-1]
    (found,) = contradictions(changed(model, -1, "output", scale=2 * last.weights[0].scale_out))
    assert found.operator == last.name
    assert "output scale" in found.text


def test_another_zero_point_is_told_where_scales_agree(model: Model) -> None:
    quant = model.tensor_quants[model.convolutions[-1].outputs[0]]
    (found,) = contradictions(changed(model, -1, "output", zero=quant.zero + 60))
    assert f"{quant.zero + 60:g}" in found.text
    check_golden("mnnfile/another-zero-point", without_numbers(found.text))
    assert contradictions(changed(model, -1, "output", zero=quant.zero + 2)) == []


def test_a_tensor_that_is_not_described_is_told_of_each_layer(model: Model) -> None:
    (found,) = contradictions(changed(model, -1, "output"))
    check_golden("mnnfile/a-tensor-that-is-not-described", found.text)
    assert contradictions(dataclasses.replace(model, tensor_quants={})) == []  # Told by what runs.


@pytest.mark.parametrize("scale", [math.inf, -math.inf, math.nan, -0.5, 7.6e12])
def test_scales_that_no_data_give_are_told_and_contradict_nothing_else(model: Model, scale: float) -> None:
    wrong = changed(model, 0, "input", scale=scale)
    (found,) = impossible_scales(wrong)
    assert found.operator == model.convolutions[0].name
    check_golden("mnnfile/an-impossible-scale", found.text, scale=f"{scale:.4g}")
    assert bool(contradictions(wrong)) == math.isfinite(scale)


def test_a_scale_of_zero_is_that_of_a_tensor_of_zeros(model: Model) -> None:
    assert impossible_scales(changed(model, 0, "input", scale=0.0)) == []


def test_the_largest_layer_is_told_first(model: Model) -> None:
    every = {index: dataclasses.replace(quant, scale=math.inf) for index, quant in model.tensor_quants.items()}
    found = impossible_scales(dataclasses.replace(model, tensor_quants=every))
    weights = {op.name: op.weight_count for op in model.ops}
    sizes = [weights[one.operator] for one in found]
    assert len(found) == 4
    assert sizes == sorted(sizes, reverse=True)
