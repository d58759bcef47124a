"""Entries of a params file find their layers again, under whatever names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.mnnfile.entries import bind_by_name, bind_by_weights, repaired
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params, WeightParams, write_params
from pytest_mnnquant.runtime.convert import convert
from tests.conftest import TIMEOUT
from tests.synthetic_evidence import layer, model
from tests.workshop import Workshop


@pytest.fixture(scope="module")
def base(workshop: Workshop) -> Model:
    """Layers of one shape, of few channels and small weights, and a Linear before a ReLU."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 16, 1), nn.Flatten(),
        nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 1),
    )  # fmt: skip
    with torch.no_grad():
        network[2].weight.mul_(0.05)  # type: ignore[operator]
    return workshop.floats(network.eval(), {"input": np.ones((2, 2, 2, 2), np.float32)})


def entry(model: Model, layer: Op, name: str) -> LayerParams:
    """What mnncompress writes for a layer: it adds 1e-6 to each weight scale."""
    scales = tuple(float(peak) / 127 + 1e-6 for peak in np.abs(model.decoded(layer)).max(1))
    return LayerParams(WeightParams(name, scales), ActivationParams("in", 0.1), ActivationParams(name, 0.1))


def test_every_layer_is_found_by_its_weights_and_lands(base: Model, workshop: Workshop, tmp_path: Path) -> None:
    layers = base.convolutions
    params = Params(tuple(entry(base, op, f"lost{number}") for number, op in enumerate(layers))[::-1])
    bound, lost = bind_by_name(params, base)
    assert (bound, len(lost)) == ([], 5)
    mended = repaired(params, base)
    assert [item.name for item in mended.layers] == [op.output_names[0] for op in layers][::-1]
    assert [item.weight for item in mended.layers] == [item.weight for item in params.layers]
    write_params(mended, tmp_path / "p.bin")
    model = workshop.quantized(base, "--compressionParamsFile", str(tmp_path / "p.bin"))
    assert [op.weights[0].label for op in model.convolutions] == ["int8"] * 5


def test_names_that_are_right_stay_and_a_linears_name_is_completed(base: Model) -> None:
    first, *_, last = base.convolutions
    assert last.output_names[0].endswith("__matmul_converted")
    short = last.output_names[0].removesuffix("__matmul_converted")
    params = Params((entry(base, first, first.output_names[0]), entry(base, last, short)))
    assert [item.name for item in repaired(params, base).layers] == [first.output_names[0], last.output_names[0]]


def test_an_entry_for_other_weights_finds_no_layer(base: Model) -> None:
    stranger = entry(base, base.convolutions[0], "lost")
    weight = dataclasses.replace(stranger.weight, scales=tuple(3 * scale for scale in stranger.weight.scales))
    params = Params((dataclasses.replace(stranger, weight=weight),))
    assert bind_by_weights(params.layers, base, base.convolutions) == [(params.layers[0], ())]
    assert repaired(params, base) == params


def test_scales_that_were_learned_are_known_by_their_pattern(base: Model) -> None:
    wide = base.convolutions[2]
    learned = entry(base, wide, "lost")
    weight = dataclasses.replace(learned.weight, scales=tuple(0.8 * scale for scale in learned.weight.scales))
    assert bind_by_weights([dataclasses.replace(learned, weight=weight)], base, base.convolutions)[0][1] == (wide,)


def test_an_entry_of_a_grouped_convolution_becomes_one_a_group(workshop: Workshop, tmp_path: Path) -> None:
    """MNN splits the convolution, and no name of the source's is left on the parts."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(8, 16, 3, groups=4), nn.ReLU()).eval()
    model = workshop.floats(network, {"input": np.ones((2, 8, 5, 5), np.float32)})
    groups = model.convolutions
    assert len(groups) == 4
    whole = entry(model, groups[0], "/Relu_output_0")
    scales = tuple(scale for op in groups for scale in entry(model, op, "").weight.scales)
    params = Params((dataclasses.replace(whole, weight=dataclasses.replace(whole.weight, scales=scales)),))
    assert bind_by_weights(params.layers, model, groups) == [(params.layers[0], groups)]
    mended = repaired(params, model)
    assert [item.name for item in mended.layers] == [op.output_names[0] for op in groups]
    assert [len(item.weight.scales) for item in mended.layers] == [4] * 4
    write_params(mended, tmp_path / "mended.bin")
    flags = ("--compressionParamsFile", str(tmp_path / "mended.bin"))
    converted = convert(model.path, tmp_path / "int8.mnn", flags, timeout=TIMEOUT)
    assert {op.weights[0].label for op in converted.convolutions} == {"int8"}


def test_a_name_that_a_loops_body_repeats_is_that_of_the_main_graph() -> None:
    """MNN numbers the tensors of a body from the start."""
    main = layer("Convolution24")
    body = dataclasses.replace(main, subgraph="loop")
    activation = ActivationParams("in", 1.0)
    given = LayerParams(WeightParams("w"), activation, dataclasses.replace(activation, name=main.output_names[0]))
    bound, lost = bind_by_name(Params((given,)), model([main, body]))
    assert (bound, lost) == ([(given, main)], [])
