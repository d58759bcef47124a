"""The operators and layers beside an operator, and what joins a layer's input."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.mnnfile.commands import joining_operator, layers_beside, layers_known_ahead
from pytest_mnnquant.mnnfile.model import Model
from tests.synthetic_evidence import layer, model
from tests.workshop import Workshop


class Joined(nn.Module):
    """Two layers, of which one is enlarged and joined with the other before the last."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map."""
        large = functional.interpolate(functional.relu(self.coarse(x)), scale_factor=2.0, mode="bilinear")
        result: torch.Tensor = self.last(torch.cat([large, self.fine(x)], 1))
        return result


@pytest.fixture(scope="module")
def joined(workshop: Workshop) -> Model:
    torch.manual_seed(0)
    return workshop.floats(Joined().eval(), {"x": torch.randn(2, 3, 8, 8).numpy()})


def only(model: Model, kind: str) -> str:
    (name,) = (op.name for op in model.ops if op.kind == kind)
    return name


def test_the_layer_that_takes_what_an_operator_makes_comes_first(joined: Model) -> None:
    layers = [op.name for op in joined.convolutions]
    (coarse,), last = (name for name in layers if "coarse" in name), joined.output_names[0]
    assert last in layers
    assert layers_beside(joined, only(joined, "Interp")) == (last, coarse)
    assert layers_beside(joined, last) == ()
    assert layers_beside(joined, "no such operator") == ()


def test_the_operator_that_joins_a_layers_input(joined: Model) -> None:
    joins = {op.name: joining_operator(joined, op) for op in joined.convolutions}
    assert set(joins.values()) == {"", only(joined, "Concat")}
    assert joining_operator(joined, dataclasses.replace(joined.ops[0], inputs=())) == ""


def test_layers_that_read_shapes_only_are_known_before_a_run() -> None:
    shape = dataclasses.replace(layer("shape", kind="Shape", outputs=(1,)), weights=())
    zeros = dataclasses.replace(layer("zeros", kind="Fill", outputs=(2,)), inputs=(1,), weights=())
    state = dataclasses.replace(layer("state", outputs=(3,)), inputs=(2,))
    entry = layer("entry", outputs=(4,))
    assert layers_known_ahead(model([shape, zeros, state, entry])) == {"state"}
