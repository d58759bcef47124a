"""What each layer adds: the figures are those of the real int8 kernels, taken apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.commands import AVERAGE_POOL, pool_kind
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.quants import write_with_quants
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.inference import run, tensor_values
from pytest_mnnquant.runtime.layer_errors import LayerRun, layer_errors
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.workshop import Workshop


def errors(workshop: Workshop, name: str, variant: Variant, samples: int = 24, alone: int = 3) -> LayerRun:
    data = workshop.prepared(name).evaluation
    assert data is not None
    pairs = [(a, b) for a, b in match_layers(variant.base, variant.model).pairs if a.is_convolution]
    return layer_errors(
        variant.base, variant.model, pairs, data.head(samples), RunOptions(TIMEOUT, batched=True), alone=alone
    )


@pytest.fixture(scope="module")
def int8(workshop: Workshop) -> LayerRun:
    return errors(workshop, "mobile_net", workshop.variant("mobile_net", "int8", "eval"))


def test_the_first_layer_inherits_rounding_of_the_input_only_and_runs_as_simulated(int8: LayerRun) -> None:
    """MNN's int8 convolution is exact integer arithmetic: rounding input and output to codes gives what it gives."""
    first = next(iter(int8.layers.values()))
    assert first.reached == pytest.approx(first.own, rel=0.02)
    assert first.weights < first.input < first.own
    assert first.inherited < first.own


def test_all_layers_are_measured_and_none_adds_more_than_it_ends_with(int8: LayerRun) -> None:
    assert len(int8.layers) == 25
    for layer in int8.layers.values():
        assert layer.measured
        assert 0 < layer.own < 0.01
        assert layer.reached > 0.3 * layer.own


def test_what_a_layer_costs_alone_is_less_than_all_together(workshop: Workshop, int8: LayerRun) -> None:
    variant = workshop.variant("mobile_net", "int8", "eval")
    data = workshop.prepared("mobile_net").evaluation
    assert data is not None
    exact = int8.exact["output"]
    assert sorted(int8.samples) == [*range(24)]
    assert exact.shape == (24, 10)
    whole = run(variant.model, data.head(24), RunOptions(TIMEOUT)).outputs["output"][[*int8.samples]]
    reference = run(variant.base, data.head(24), RunOptions(TIMEOUT)).outputs["output"][[*int8.samples]]
    assert np.allclose(reference, exact, atol=1e-4)
    assert len(int8.alone.keys() & int8.layers.keys()) == 3
    for outputs in int8.alone.values():
        assert sqnr_db(exact, whole) < sqnr_db(exact, outputs["output"]) < 70


def test_an_operator_without_weights_is_measured_on_exact_inputs(workshop: Workshop, tmp_path: Path) -> None:
    """Where the tensor after an average pool is not described, MNN takes the mean in int8, which rounds down."""
    variant = workshop.variant("mobile_net", "int8", "eval")
    layers = [op for op in variant.model.convolutions if op.weights[0].full_int8]
    own = {tensor for op in layers for tensor in (op.inputs[0], op.outputs[0])}
    quants = {tensor: quant for tensor, quant in variant.model.tensor_quants.items() if tensor in own}
    write_with_quants(variant.model, quants, tmp_path / "plain.mnn")
    plain = dataclasses.replace(variant, model=read_model(tmp_path / "plain.mnn"))
    found = errors(workshop, "mobile_net", plain)
    described = errors(workshop, "mobile_net", variant)
    pools = {op.name for op in plain.model.ops if pool_kind(op) == AVERAGE_POOL} & found.alone.keys()
    assert pools
    for pool in pools:
        assert found.operators[pool].own > 1e-4
        assert found.alone[pool].keys() == found.exact.keys()
        # In float, a mean on the border between two codes may still become the other one.
        assert described.operators[pool].own < found.operators[pool].own / 50


def test_weight_only_layers_add_what_their_weights_add(workshop: Workshop) -> None:
    found = errors(workshop, "digits_cnn", workshop.variant("digits_cnn", "w4"), alone=1)
    for layer in found.layers.values():
        assert layer.weights == layer.input == layer.own > 1e-4
        assert (layer.clipped_in, layer.clipped_out) == (0, 0)


def test_a_model_that_is_float_adds_nothing(workshop: Workshop) -> None:
    base = workshop.prepared("digits_cnn").model
    data = workshop.prepared("digits_cnn").evaluation
    assert data is not None
    pairs = [(op, op) for op in base.convolutions]
    found = layer_errors(base, base, pairs, data.head(8), RunOptions(TIMEOUT, batched=True), alone=4)
    assert all(layer.own < 1e-10 and layer.reached < 1e-10 for layer in found.layers.values())


def test_values_outside_of_the_codes_are_counted(workshop: Workshop, digits_int8: Variant) -> None:
    """The tensor's scale is cut to a tenth in the file, so that most values are clipped."""
    model = digits_int8.model
    layer = model.convolutions[1]
    quants = dict(model.tensor_quants)
    quants[layer.inputs[0]] = dataclasses.replace(quants[layer.inputs[0]], scale=quants[layer.inputs[0]].scale / 10)
    cut: Model = dataclasses.replace(model, tensor_quants=quants)
    data = workshop.prepared("digits_cnn").evaluation
    assert data is not None
    pairs = [(a, b) for a, b in match_layers(digits_int8.base, cut).pairs if a.is_convolution]
    found = layer_errors(digits_int8.base, cut, pairs, data.head(8), RunOptions(TIMEOUT, batched=True), alone=0)
    values = tensor_values(digits_int8.base, [layer], data.head(8), RunOptions(TIMEOUT))[layer.name][0]
    assert values is not None
    quant = quants[layer.inputs[0]]
    codes = np.rint(values / quant.scale) + quant.zero
    outside = float(((codes < quant.low) | (codes > quant.high)).mean())
    assert outside > 0.1
    assert found.layers[layer.name].clipped_in == pytest.approx(outside, abs=0.01)
    assert found.layers[layer.name].input > 0.05


def test_constants_in_codes_stay_as_they_are(workshop: Workshop) -> None:
    """mnnquant describes the constants of a HardSigmoid; a float that is written into one would spoil its operator."""
    found = errors(workshop, "mobile_net", workshop.variant("mobile_net", "mnnquant-kl"), samples=8, alone=0)
    sums = [losses.own for name, losses in found.operators.items() if name.startswith("BinaryOp")]
    assert sums
    assert max(sums) < 0.1
