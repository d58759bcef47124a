"""One layer spoilt with the real tools: the accuracy check fails, and names that layer in the user's terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.mnnfile.params import LayerParams, Params, read_params, write_params
from pytest_mnnquant.quantize.prepared import Prepared
from tests.faults.conftest import Judge
from tests.faults.factory import FIRST, HIDDEN, LAST, NET, SECOND, Factory

Change = Callable[[LayerParams], LayerParams]


def with_entries(factory: Factory, change: Callable[[Params], tuple[LayerParams, ...]]) -> Path:
    params = read_params(factory.params())
    path = factory.fresh("spoilt.bin", b"x")
    write_params(dataclasses.replace(params, layers=change(params)), path)
    return path


def weights_scaled(factory: Factory, layer: str, factor: float) -> Path:
    def change(params: Params) -> tuple[LayerParams, ...]:
        return tuple(
            dataclasses.replace(
                entry,
                weight=dataclasses.replace(entry.weight, scales=tuple(factor * scale for scale in entry.weight.scales)),
            )
            if entry.weight.name == layer
            else entry
            for entry in params.layers
        )

    return with_entries(factory, change)


def tensor_changed(factory: Factory, tensor: str, factor: float = 1.0, shift: int = 0) -> Path:
    """A tensor's scale and zero point in all entries that speak of it."""

    def change(params: Params) -> tuple[LayerParams, ...]:
        def side(found: object) -> object:
            if found is None or found.name != tensor:  # type: ignore[attr-defined]
                return found
            return dataclasses.replace(found, scale=factor * found.scale, zero_point=found.zero_point + shift)  # type: ignore[type-var,attr-defined]

        return tuple(dataclasses.replace(e, input=side(e.input), output=side(e.output)) for e in params.layers)  # type: ignore[arg-type]

    return with_entries(factory, change)


@pytest.mark.parametrize(
    ("layer", "factor"), [(FIRST, 200.0), (SECOND, 0.02), (HIDDEN, 0.01), (LAST, 0.01), (SECOND, 200.0)]
)
def test_spoilt_weights_are_found_in_their_layer(factory: Factory, judge: Judge, layer: str, factor: float) -> None:
    params = weights_scaled(factory, layer, factor)
    model = factory.convert(factory.float(), "--compressionParamsFile", params)
    verdict = judge(factory.float(), model, params=params)
    assert "int8::accuracy" in verdict.failed
    verdict.tells("MNQ701", where=layer, why="from its weights")
    assert verdict.metrics("accuracy")["suspect"] == layer


def test_a_clipped_output_is_found_in_its_layer_with_the_share_of_values(factory: Factory, judge: Judge) -> None:
    tensor = read_params(factory.params()).layers[1].output
    assert tensor is not None
    params = tensor_changed(factory, tensor.name, 0.05)
    model = factory.convert(factory.float(), "--compressionParamsFile", params)
    verdict = judge(factory.float(), model, params=params)
    verdict.tells("MNQ701", where=SECOND, why="from its output quantization")


def test_a_saturated_input_is_found_in_the_first_layer(factory: Factory, judge: Judge) -> None:
    params = tensor_changed(factory, read_params(factory.params()).layers[0].input.name, 0.02)  # type: ignore[union-attr]
    model = factory.convert(factory.float(), "--compressionParamsFile", params)
    verdict = judge(factory.float(), model, params=params)
    verdict.tells("MNQ701", where=FIRST, why="from its input quantization")


@pytest.fixture(scope="module")
def without_a_channel(factory: Factory) -> Prepared:
    net = factory.module(NET).build()
    convolution = net.features[4]
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        convolution.weight[:24] = 0
    return factory.prepared(NET, net)


def test_zeroed_channels_are_found_in_their_layer(factory: Factory, judge: Judge, without_a_channel: Prepared) -> None:
    params = factory.params(without_a_channel)
    model = factory.convert(without_a_channel.model.path, "--compressionParamsFile", params)
    verdict = judge(factory.float(), model, params=params)
    assert {"int8::accuracy", "int8::weights"} <= verdict.failed
    verdict.tells("MNQ701", where=SECOND, why="from its weights")


def test_the_healthy_twin_passes(factory: Factory, judge: Judge) -> None:
    verdict = judge(factory.float(), factory.int8(), params=factory.params())
    assert verdict.status == 0, verdict.text
    assert "suspect" not in verdict.metrics("accuracy")


class TwoHeads(nn.Module):
    """A class and an offset."""

    def __init__(self, swapped: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten())
        self.first, self.second = nn.Linear(16 * 196, 6), nn.Linear(16 * 196, 6)
        self.swapped = swapped

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x)
        found = self.first(x), self.second(x)
        return found[::-1] if self.swapped else found


@pytest.fixture(scope="module")
def heads(factory: Factory) -> tuple[Prepared, Prepared]:
    one, other = (factory.prepared(NET, TwoHeads(swapped).eval()) for swapped in (False, True))
    return one, other


def test_outputs_in_another_order_are_told_as_such(
    factory: Factory, judge: Judge, heads: tuple[Prepared, Prepared]
) -> None:
    right, swapped = heads
    data = factory.fresh("plain.npz", b"x")
    np.savez(data, x=factory.module(NET).evaluation()["x"][:100])
    params = factory.params(swapped)
    model = factory.convert(swapped.model.path, "--compressionParamsFile", params)
    verdict = judge(right.model.path, model, params=params, data=data)
    verdict.tells("MNQ702", where="'output'", why="it holds the values of output 'output1'")
    healthy = factory.convert(right.model.path, "--compressionParamsFile", factory.params(right))
    assert judge(right.model.path, healthy, params=factory.params(right), data=data).status == 0
