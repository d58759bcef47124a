"""Int8 models whose tensors MNN can't quantize in two ways: the same result in every process and API."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.commands import AVERAGE_POOL, commands, pool_kind
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import Model, Op, read_model
from pytest_mnnquant.mnnfile.pooling import is_max_pool, pools_right, write_exact_copy
from pytest_mnnquant.mnnfile.quants import write_with_quants
from pytest_mnnquant.mnnfile.scale_propagation import outcomes
from pytest_mnnquant.mnnfile.structure import differences
from pytest_mnnquant.quantize.calibration import Range
from pytest_mnnquant.quantize.described_tensors import described_tensors, interpolated_ranges
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.arm_equivalent import arm_equivalent, int8_pools
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import FIXTURES, TIMEOUT, quietly
from tests.workshop import Workshop

INPUTS = {"x": np.random.default_rng(0).standard_normal((32, 3, 16, 16)).astype(np.float32)}


class Neck(nn.Module):
    """A deep feature goes through `resize` into one concat, unmodified into another, both of other ranges."""

    def __init__(self, resize: str) -> None:
        super().__init__()
        self.resize = resize
        self.fine, self.deep = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.first, self.down, self.second = nn.Conv2d(16, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(16, 8, 1)
        with torch.no_grad():
            self.fine.weight.mul_(6)
            self.deep.weight.mul_(0.2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two maps."""
        fine = functional.silu(self.fine(x))
        deep = functional.silu(self.deep(fine))
        large = functional.interpolate(deep, scale_factor=2.0, mode=self.resize)
        high = self.first(torch.cat([large, fine], 1))
        return high, self.second(torch.cat([functional.silu(0.3 * self.down(high)), deep], 1))


class Joined(nn.Module):
    """A residual sum with ReLU that is joined with something else before the next layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map."""
        first = self.first(x)
        result: torch.Tensor = self.last(torch.cat([functional.relu(first + self.second(first)), first], 1))
        return result


class Enlarged(nn.Module):
    """An Interp directly between two layers."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map."""
        result: torch.Tensor = self.second(functional.interpolate(self.first(x), scale_factor=2.0, mode=self.mode))
        return result


class Added(nn.Module):
    """A sum, resized and joined with another map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(11, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map."""
        first = self.first(x)
        large = functional.interpolate(functional.relu(first + self.second(first)), scale_factor=2.0, mode="bilinear")
        result: torch.Tensor = self.last(torch.cat([large, x], 1))
        return result


class Sliced(nn.Module):
    """A resize of a sum's maxima, and a slice of them with much smaller values."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(3, 8, 3, 2, 1)
        self.part, self.whole = nn.Conv2d(3, 4, 1), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.weight[4:].mul_(5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two maps."""
        added = functional.max_pool2d(self.first(x) + self.second(x), 2)
        return self.part(added[:, :3]), self.whole(functional.interpolate(added, scale_factor=2.0, mode=self.mode))


class Between(nn.Module):
    """Maxima between operators that compute in float; a layer reads the same tensor in codes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two maps."""
        first = functional.silu(self.first(x))
        return self.second(first), functional.max_pool2d(first, 2) * 0.5


def quantized(workshop: Workshop, network: nn.Module, recipe: str = "int8") -> Variant:
    torch.manual_seed(0)
    choices = Choices(FIXTURES, calibration=INPUTS, evaluation=INPUTS, timeout=TIMEOUT)
    source = prepare(Spec("net", "net"), choices, workshop.store, quietly, network.eval())
    return make_variant(Job(source, recipe_named(recipe), "eval", (), choices), workshop.store, quietly)


def undescribed(variant: Variant) -> Model:
    """The variant with the tensors alone that its params file describes."""
    layers = [op for op in variant.model.convolutions if op.weights[0].full_int8]
    own = {tensor for op in layers for tensor in (op.inputs[0], op.outputs[0])}
    quants = {tensor: quant for tensor, quant in variant.model.tensor_quants.items() if tensor in own}
    return dataclasses.replace(variant.model, tensor_quants=quants)


def quality(variant: Variant, **how: Any) -> float:
    exact, made = (run(model, INPUTS, RunOptions(TIMEOUT, **how)).outputs for model in (variant.base, variant.model))
    return min(sqnr_db(array, made[name]) for name, array in exact.items())


@pytest.mark.parametrize("recipe", ["int8", "int8-kl", "int8+w8"])
def test_a_tensor_that_two_scales_reach_gets_its_own(workshop: Workshop, recipe: str) -> None:
    torch.manual_seed(0)
    variant = quantized(workshop, Neck("nearest"), recipe)
    before = undescribed(variant)
    assert len(outcomes(commands(before), before.tensor_quants)) > 1
    assert len(outcomes(commands(variant.model), variant.model.tensor_quants)) == 1
    assert quality(variant) > 25
    assert quality(variant, through_module=True) == pytest.approx(quality(variant), abs=0.5)


def test_a_relu_in_a_sum_clamps_at_zero_behind_a_concat_too(workshop: Workshop) -> None:
    torch.manual_seed(0)
    variant = quantized(workshop, Joined())
    added = next(op for op in variant.model.ops if op.kind == "BinaryOp")
    assert variant.model.tensor_quants[added.outputs[0]].zero == 0
    assert quality(variant) > 25


def test_a_nearest_interp_between_layers_keeps_the_scale(workshop: Workshop) -> None:
    torch.manual_seed(0)
    variant = quantized(workshop, Enlarged("nearest"))
    resized = next(op for op in variant.model.ops if op.kind == "Interp")
    quants = variant.model.tensor_quants
    assert quants[resized.inputs[0]] == quants[resized.outputs[0]]
    assert quality(variant) > 30


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_an_interp_that_interpolates_stays_float_between_int8_layers(workshop: Workshop, mode: str) -> None:
    torch.manual_seed(0)
    variant = quantized(workshop, Enlarged(mode))
    trace = run(variant.model, INPUTS, RunOptions(TIMEOUT)).trace
    assert trace is not None
    ran = {kind: [op.int8 for op in trace if op.kind == kind] for kind in ("Convolution", "Interp")}
    assert ran == {"Convolution": [True, True], "Interp": [False]}
    assert quality(variant) > 30
    assert quality(variant, through_module=True) == pytest.approx(quality(variant), abs=0.1)
    assert differences(variant.base, variant.model, match_layers(variant.base, variant.model)) == []


def test_the_sum_that_a_float_resize_reads_has_a_range_of_its_own(workshop: Workshop) -> None:
    torch.manual_seed(0)
    variant = quantized(workshop, Added())
    added = next(op for op in variant.model.ops if op.kind == "BinaryOp")
    assert variant.model.tensor_quants[added.outputs[0]].data_type == "int8"
    assert quality(variant) > 25
    assert quality(variant, through_module=True) == pytest.approx(quality(variant), abs=0.1)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_resize_beside_a_slice_does_not_get_the_range_of_the_slice(workshop: Workshop, mode: str) -> None:
    torch.manual_seed(0)
    variant = quantized(workshop, Sliced(mode))
    resized = next(op for op in variant.model.ops if op.kind == "Interp")
    sliced = next(op for op in variant.model.ops if op.kind == "StridedSlice")
    quants = variant.model.tensor_quants
    assert quants[resized.outputs[0]].scale > 4 * quants[sliced.outputs[0]].scale
    with arm_equivalent(variant.model, run(variant.model, INPUTS, RunOptions(TIMEOUT))) as (model, _):
        assert quality(dataclasses.replace(variant, model=model)) > 20


def test_an_exact_copy_pools_codes_between_float_operators_too(workshop: Workshop, tmp_path: Path) -> None:
    torch.manual_seed(0)
    variant = quantized(workshop, Between())
    shared = variant.model.convolutions[-1].inputs[0]
    quant = variant.model.tensor_quants[shared]
    narrow = dataclasses.replace(quant, scale=quant.scale / 4)
    write_with_quants(variant.model, {**variant.model.tensor_quants, shared: narrow}, tmp_path / "narrow.mnn")
    model = read_model(tmp_path / "narrow.mnn")
    as_run = run(model, INPUTS, RunOptions(TIMEOUT))
    assert int8_pools(model, as_run)
    with arm_equivalent(model, as_run) as (copy, _):
        maxima = run(copy, INPUTS, RunOptions(TIMEOUT)).outputs["output1"]
    assert float(maxima.max()) == pytest.approx(0.5 * narrow.scale * (narrow.high - narrow.zero), rel=1e-3)


def test_only_interps_change_the_ranges_of_layers(workshop: Workshop) -> None:
    base = workshop.prepared("digits_cnn").model
    layers = int8_layers(base)
    ranges = {tensor: Range(-1.0, tensor) for op in layers for tensor in (op.inputs[0], op.outputs[0])}
    assert interpolated_ranges(base, layers, ranges) == ranges


@pytest.mark.parametrize("name", ["digits_cnn", "garment_classifier", "mobile_net", "tiny_transformer"])
def test_models_without_such_tensors_stay_as_converted(workshop: Workshop, name: str) -> None:
    model = workshop.variant(name, "int8", "eval").model
    assert described_tensors(model, lambda _: None) == model.tensor_quants


class Averaged(nn.Module):
    """Maxima of positive features, averaged over the plane, in two dimensions or in one."""

    def __init__(self, *, flat: bool) -> None:
        super().__init__()
        self.features, self.flat = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 1, 1)), flat
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores."""
        found = self.features(x)
        means = functional.avg_pool1d(found.flatten(2), 256) if self.flat else functional.adaptive_avg_pool2d(found, 1)
        result: torch.Tensor = self.head(means.flatten(1))
        return result


def averages(model: Model) -> list[Op]:
    return [op for op in model.ops if pool_kind(op) == AVERAGE_POOL]


@pytest.mark.parametrize("flat", [False, True])
def test_a_mean_gets_its_own_range(workshop: Workshop, flat: bool) -> None:
    torch.manual_seed(0)
    variant = quantized(workshop, Averaged(flat=flat))
    quants = variant.model.tensor_quants
    assert averages(variant.model)
    for pool in averages(variant.model):
        if pool.inputs[0] in quants:
            assert quants[pool.outputs[0]].scale < 0.8 * quants[pool.inputs[0]].scale
    with arm_equivalent(variant.model, run(variant.model, INPUTS, RunOptions(TIMEOUT))) as (model, _):
        exact, made = (run(each, INPUTS, RunOptions(TIMEOUT)).outputs for each in (variant.base, model))
    assert min(sqnr_db(array, made[name]) for name, array in exact.items()) > 33


def test_a_mean_that_mnn_takes_in_int8_is_taken_so_behind_an_exact_pool(workshop: Workshop, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = undescribed(quantized(workshop, Averaged(flat=False)))
    write_with_quants(plain, plain.tensor_quants, tmp_path / "plain.mnn")
    model = read_model(tmp_path / "plain.mnn")
    traced = run(model, INPUTS, RunOptions(TIMEOUT))
    names = {op.name for op in averages(model)}
    assert names & int8_pools(model, traced)
    maxima = {op.name for op in model.ops if is_max_pool(op)}
    assert set(write_exact_copy(model, int8_pools(model, traced), tmp_path / "copy.mnn")) == maxima
    copy = read_model(tmp_path / "copy.mnn")
    assert int8_pools(copy, run(copy, INPUTS, RunOptions(TIMEOUT))) == names


class Columns(nn.Module):
    """Columns of pooled features as the steps of an LSTM, which becomes a loop."""

    def __init__(self) -> None:
        super().__init__()
        pool = (nn.ReLU(), nn.MaxPool2d(2))
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), *pool, nn.Conv2d(8, 8, (8, 1)))
        self.steps, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of each column."""
        result: torch.Tensor = self.head(self.steps(self.features(x).squeeze(2).transpose(1, 2))[0])
        return result


def test_models_with_loops_are_judged_with_exact_pools(workshop: Workshop) -> None:
    torch.manual_seed(0)
    variant = quantized(workshop, Columns())
    assert variant.model.has_subgraphs
    options = RunOptions(TIMEOUT, batched=False)
    as_run = run(variant.model, INPUTS, options)
    assert as_run.trace is None
    exact = run(variant.base, INPUTS, options).outputs
    with arm_equivalent(variant.model, as_run) as (model, changed):
        assert bool(changed) != pools_right()
        made = run(model, INPUTS, options).outputs
    assert min(sqnr_db(array, made[name]) for name, array in exact.items()) > 25
