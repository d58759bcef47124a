"""Float operators whose outputs become codes before a layer reads them: a range that is too narrow is their error."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.quants import write_with_quants
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.layer_errors import layer_errors
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import FIXTURES, TIMEOUT, quietly
from tests.workshop import Workshop

INPUTS = {"x": np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)}


class Branches(nn.Module):
    """Two branches with a LeakyReLU, which MNN computes in float; the first has the larger values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.large, self.small, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            self.large.weight.mul_(4)
            self.small.weight.mul_(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map."""
        joined = torch.cat([functional.leaky_relu(self.large(x)), functional.leaky_relu(self.small(x))], 1)
        result: torch.Tensor = self.last(joined)
        return result


def test_a_branch_that_its_codes_clip_costs_more_than_each_layer(workshop: Workshop, tmp_path: Path) -> None:
    """All tensors that are joined have a scale that clips one of them, as mnnquant's KL chooses it."""
    choices = Choices(FIXTURES, calibration=INPUTS, evaluation=INPUTS, timeout=TIMEOUT)
    source = prepare(Spec("net", "net"), choices, workshop.store, quietly, Branches().eval())
    variant = make_variant(Job(source, recipe_named("int8"), "eval", (), choices), workshop.store, quietly)
    leaky = [op for op in variant.model.ops if op.kind == "ReLU"]
    last = variant.model.convolutions[-1].inputs[0]
    narrow = dataclasses.replace(variant.model.tensor_quants[last], scale=0.01, zero=0.0)
    quants = {**variant.model.tensor_quants, last: narrow, **{op.outputs[0]: narrow for op in leaky}}
    write_with_quants(variant.model, quants, tmp_path / "clipped.mnn")
    clipped = read_model(tmp_path / "clipped.mnn")
    pairs = [(a, b) for a, b in match_layers(variant.base, clipped).pairs if a.is_convolution]
    found = layer_errors(variant.base, clipped, pairs, INPUTS, RunOptions(TIMEOUT, batched=True), alone=3)
    large, small = (found.operators[op.name].own for op in leaky)
    assert small < 0.01 < 0.1 < large
    assert found.layers.keys().isdisjoint(op.name for op in leaky)
    assert leaky[0].name in found.alone
