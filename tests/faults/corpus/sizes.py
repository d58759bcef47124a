"""Section I: sizes that mislead, whether the model is sound or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import recipe_named
from tests.conftest import FIXTURES, TIMEOUT, quietly
from tests.faults.corpus.converter import FC1, GARMENT, misnamed
from tests.faults.corpus.params_files import FLAG, W8, edited_guide, healthy, weight_only
from tests.faults.corpus.plan import Pair, Planted, fault
from tests.faults.factory import HIDDEN, NET, SECOND, Factory

EIGHT = ("--weightQuantBits", "8")
#: Why rows of the catalogue's section I are not built here.
NOT_BUILT: dict[str, str] = {}


def known(factory: Factory, key: str, make: Callable[[], Any]) -> Any:
    """What is made once."""
    if ("sizes", key) not in factory._known:
        factory._known["sizes", key] = make()
    return factory._known["sizes", key]


def ratio(least: float, *more: str) -> tuple[str, ...]:
    return (f"--mnn-min-size-ratio={least}", *more)


def inputs(factory: Factory) -> Path:
    """Held-out images without labels, for nets that were never trained."""

    def make() -> Path:
        path = factory.fresh("plain.npz")
        np.savez(path, x=factory.module(NET).evaluation()["x"][:100])
        return path

    return known(factory, "inputs", make)  # type: ignore[no-any-return]


# Code books and scales -----------------------------------------------------------------------------------------------


class Tiny(nn.Module):
    """So few weights that each layer's code book of 256 entries is larger than they."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(torch.relu(self.first(x))).mean((2, 3))
        return out


def tiny(factory: Factory) -> Prepared:
    def make() -> Prepared:
        torch.manual_seed(0)
        return factory.prepared(NET, Tiny().eval())

    return known(factory, "tiny", make)  # type: ignore[no-any-return]


@fault("I", "tiny-model-grows", "MNQ802")
def a_tiny_model_that_must_shrink(factory: Factory) -> Pair:
    """It grows as it has to: only who demands that it shrink is disappointed."""
    source, data = tiny(factory).model.path, inputs(factory)
    model = factory.convert(source, *EIGHT)
    return Pair(
        Planted(source, model, data=data, options=ratio(1.5, *W8)), Planted(source, model, data=data, options=W8)
    )


@fault("I", "tiny-model-grows-int8", "MNQ802")
def a_tiny_int8_model_that_must_shrink(factory: Factory) -> Pair:
    source, data, params = tiny(factory).model.path, inputs(factory), factory.params(tiny(factory))
    model = factory.convert(source, FLAG, params)
    return Pair(Planted(source, model, params, data, options=ratio(2)), Planted(source, model, params, data))


@fault("I", "tiny-model-does-not-grow", "MNQ401", "/first/Conv_output_0")
def a_tiny_model_that_stays_as_it_is(factory: Factory) -> Pair:
    """The float model passes a demand on its size that the quantized one fails."""
    source, data = tiny(factory).model.path, inputs(factory)
    return Pair(
        Planted(source, factory.convert(source), data=data, options=ratio(0.7, *W8)),
        Planted(source, factory.convert(source, *EIGHT), data=data, options=ratio(0.5, *W8)),
    )


# What it is compared with --------------------------------------------------------------------------------------------


def split(factory: Factory) -> Path:
    """The net with its weights in a file of their own, as PyTorch's dynamo exporter writes it."""

    def make() -> Path:
        path = factory.fresh("net.onnx")
        model = onnx.load(factory.onnx())
        onnx.save_model(model, path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
        return path

    return known(factory, "split", make)  # type: ignore[no-any-return]


@fault("I", "onnx-external-baseline", "MNQ802")
def a_model_larger_than_its_onnx_file(factory: Factory) -> Pair:
    """The .mnn is larger than the .onnx beside its data, and still as small as it should be."""
    source, data = split(factory), factory.evaluation()
    half = factory.convert(source, "--fp16")
    assert half.stat().st_size > 5 * source.stat().st_size
    eight = factory.convert(source, *EIGHT)
    return Pair(
        Planted(source, half, data=data, options=ratio(3, "--mnn-recipe=fp16")),
        Planted(source, eight, data=data, options=ratio(3, *W8)),
    )


@fault("I", "onnx-external-baseline-data-left-behind", "MNQ101")
def an_onnx_file_without_its_data(factory: Factory) -> Pair:
    def make() -> Path:
        return factory.fresh("net.onnx", split(factory).read_bytes())

    source = known(factory, "without data", make)
    whole = split(factory)
    model = factory.convert(whole, *EIGHT)
    return Pair(
        Planted(source, model, data=factory.evaluation(), options=W8),
        Planted(whole, model, data=factory.evaluation(), options=W8),
    )


@fault("I", "onnx-external-baseline-float", "MNQ401", HIDDEN)
def a_float_model_smaller_than_the_onnx_data(factory: Factory) -> Pair:
    source = split(factory)
    model = factory.convert(source)
    return Pair(
        Planted(source, model, data=factory.evaluation(), options=W8),
        Planted(source, factory.convert(source, *EIGHT), data=factory.evaluation(), options=W8),
    )


# Weights that are there twice ----------------------------------------------------------------------------------------


class Tied(nn.Module):
    """One matrix in two places: a Linear layer, and what its output is multiplied by."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(256, 96)
        self.shared = nn.Linear(96, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.lift(x.flatten(1)))
        for _ in range(3):
            x = torch.relu(self.shared(x))
        return x


def tied(factory: Factory) -> Prepared:
    def make() -> Prepared:
        torch.manual_seed(0)
        return factory.prepared(NET, Tied().eval())

    return known(factory, "tied", make)  # type: ignore[no-any-return]


@fault("I", "optimizePrefer-duplication", "MNQ802")
def a_layer_called_three_times(factory: Factory) -> Pair:
    """MNN stores it three times: a demand made for one copy is not met, though all are quantized."""
    source = tied(factory).model.path
    onnx_ = source.with_name("float.onnx")
    model = factory.convert(onnx_, *EIGHT, "--optimizePrefer", "2")
    return Pair(
        Planted(source, model, data=inputs(factory), options=ratio(4.5, *W8)),
        Planted(source, model, data=inputs(factory), options=W8),
    )


# Two tools, two sizes ------------------------------------------------------------------------------------------------


def by_mnnquant(factory: Factory) -> Path:
    """The int8 model of MNN's offline tool, which knows layers by their operators."""

    def make() -> Path:
        source, choices = factory.prepared(GARMENT), Choices(FIXTURES, timeout=TIMEOUT)
        recipe = recipe_named("mnnquant-kl")
        return make_variant(Job(source, recipe, None, (), choices), factory.store, quietly).model.path

    return known(factory, "mnnquant", make)  # type: ignore[no-any-return]


@fault("I", "cross-tool-size-gap", "MNQ304", FC1)
def the_larger_of_two_int8_models(factory: Factory) -> Pair:
    """Of two tools for the same, one goes by names that MNN changes: 160 and 55 thousand bytes."""
    params, data = misnamed(factory), factory.evaluation(GARMENT)
    model = factory.convert(factory.float(GARMENT), FLAG, params)
    twin = Planted(factory.onnx(GARMENT), by_mnnquant(factory), data=data, options=("--mnn-recipe=mnnquant-kl",))
    return Pair(Planted(factory.onnx(GARMENT), model, params, data), twin)


@fault("I", "cross-tool-size-gap-params-not-given", "MNQ401", FC1)
def the_larger_of_two_int8_models_from_the_file(factory: Factory) -> Pair:
    source, model = factory.float(GARMENT), factory.convert(factory.float(GARMENT), FLAG, misnamed(factory))
    twin = Planted(source, by_mnnquant(factory), options=("--mnn-recipe=mnnquant-kl",))
    return Pair(Planted(source, model), twin)


@fault("I", "cross-tool-size-gap-unlisted", "MNQ306", SECOND)
def a_layer_that_one_tool_does_not_know(factory: Factory) -> Pair:
    params = factory.params(skip=[SECOND])
    model = factory.convert(factory.float(), FLAG, params)
    return Pair(Planted(factory.onnx(), model, params, factory.evaluation()), healthy(factory))


# The right size by a wrong mixture -----------------------------------------------------------------------------------


def guided(factory: Factory, bits: dict[str, int]) -> Path:
    """The net with these bits by layer."""
    return factory.convert(factory.onnx(), FLAG, edited_guide(factory, bits))


@fault("I", "ratio-reached-with-a-float-layer", "MNQ401", SECOND)
def a_float_layer_within_the_ratio(factory: Factory) -> Pair:
    model, twin = known(factory, "mixture", lambda: guided(factory, {SECOND: 0})), weight_only(factory)
    data = factory.evaluation()
    return Pair(
        Planted(factory.onnx(), model, data=data, options=ratio(2.4, *W8)),
        Planted(twin.source, twin.quantized, data=data, options=ratio(2.4, *W8)),
    )


@fault("I", "ratio-reached-with-three-bits", "MNQ402", HIDDEN)
def three_bits_in_the_largest(factory: Factory) -> Pair:
    model = known(factory, "three", lambda: guided(factory, {HIDDEN: 3}))
    twin = weight_only(factory, data=False)
    return Pair(
        Planted(factory.float(), model, options=ratio(3, *W8)),
        Planted(twin.source, twin.quantized, options=ratio(3, *W8)),
    )
