"""What MNN computes in int8 on this machine equals integer arithmetic in every code.

benchmarks/accuracy_truth.py asks the same of whole trained networks, and of MNN's ARM kernels.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.pooling import is_max_pool, pools_right, write_exact_copy
from pytest_mnnquant.quantize.calibration import Range, make_params, save_params
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.runtime.inference import run, tensor_ranges
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import ROOT, TIMEOUT
from tests.workshop import Workshop

ZEROS = (-127, -56, 0, 33)
Arrays = dict[str, npt.NDArray[Any]]


def conv(given: int, made: int, kernel: int | tuple[int, int], *more: nn.Module, **how: Any) -> tuple[nn.Module, ...]:
    return (nn.Conv2d(given, made, kernel, **how), *more)


NETS: dict[str, tuple[tuple[nn.Module, ...], tuple[int, ...]]] = {
    "convolutions": (
        (
            *(*conv(3, 9, 3, padding=1), *conv(9, 12, 5, stride=2, padding=2), *conv(12, 20, 1)),
            *(*conv(20, 8, 3, padding=2, dilation=2), *conv(8, 5, (3, 1), stride=(1, 2))),
        ),
        (6, 3, 15, 13),
    ),
    "depthwise": (
        (
            *(*conv(4, 20, 1), *conv(20, 20, 3, padding=1, groups=20), *conv(20, 20, 5, padding=2, groups=20)),
            *(*conv(20, 20, 3, stride=2, groups=20), *conv(20, 6, 1)),
        ),
        (6, 4, 15, 13),
    ),
    "grouped": ((*conv(4, 16, 3, padding=1), *conv(16, 32, 3, padding=1, groups=2), *conv(32, 5, 1)), (4, 4, 9, 9)),
    "fused": (
        (
            *(*conv(3, 16, 3, nn.ReLU(), padding=1), *conv(16, 16, 3, nn.ReLU6(), padding=1, groups=16)),
            *(*conv(16, 24, 1, nn.ReLU6()), *conv(24, 8, 3, nn.ReLU(), stride=2)),
        ),
        (6, 3, 15, 13),
    ),
    "linear": ((nn.Linear(70, 33), nn.ReLU(), nn.Linear(33, 40), nn.Linear(40, 10)), (50, 70)),
    "pooled": (
        (*conv(3, 12, 3, padding=1), nn.MaxPool2d(3, 2, 1), *conv(12, 12, 3), nn.AvgPool2d(3), *conv(12, 6, 1)),
        (6, 3, 17, 17),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _benchmarks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


def inputs_of(shape: tuple[int, ...]) -> Arrays:
    return {"input": torch.randn(*shape, generator=torch.Generator().manual_seed(1)).numpy()}


def as_wide(found: Range, zero: int) -> Range:
    """A range around this zero point that loses little of the values."""
    step = max(found.high / (127 - zero), -found.low / (zero + 127) if zero > -127 else 0.0, 1e-3)
    return Range(-(zero + 127) * step, (127 - zero) * step)


def int8_model(workshop: Workshop, name: str, first: int) -> tuple[Model, Arrays]:
    """A net in int8 whose tensors have the zero points in turn, starting with number `first`. Pools keep their grid."""
    layers, shape = NETS[name]
    torch.manual_seed(0)
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.reset_parameters()
    inputs = inputs_of(shape)
    base = workshop.floats(nn.Sequential(*layers).eval(), inputs)
    ops = int8_layers(base)
    seen = tensor_ranges(base, ops, inputs, RunOptions(TIMEOUT))
    zeros = itertools.cycle(ZEROS[first:] + ZEROS[:first])
    ranges: dict[int, Range] = {}
    for number, op in enumerate(ops):
        for side, tensor in enumerate((op.inputs[0], op.outputs[0])):
            if tensor not in ranges:
                low, high = seen[:, number, side, 0].min(), seen[:, number, side, 1].max()
                ranges[tensor] = as_wide(Range(float(low), float(high)), next(zeros))
    for op in base.ops:
        if op.kind == "Pooling":
            ranges[op.outputs[0]] = ranges[op.inputs[0]]
    path = save_params(make_params(base, ops, ranges), base.path.with_name(f"{first}.bin"))
    return workshop.quantized(base, "--compressionParamsFile", str(path)), inputs


@pytest.mark.parametrize("name", [name for name in NETS if name != "pooled"])
def test_every_code_equals_the_integer_reference(workshop: Workshop, name: str) -> None:
    from accuracy_truth import compared

    model, inputs = int8_model(workshop, name, 1)
    trace = run(model, inputs, RunOptions(TIMEOUT)).trace
    assert trace is not None
    tensors = compared(model, trace, inputs)
    layers = [op.name for op in model.convolutions]
    assert {one.op for one in tensors if one.unlike is not None} >= set(layers)
    assert [one for one in tensors if one.unlike] == []
    assert {one.kind for one in tensors if one.unlike is None} <= ({"BinaryOp"} if name == "grouped" else set())
    assert sum(one.count for one in tensors if one.op in layers) > 1000
    assert {int(quant.zero) for quant in model.tensor_quants.values()} == set(ZEROS)


@pytest.fixture(scope="module", params=ZEROS[:3], ids=lambda zero: f"zero point {zero}")
def pooled(request: pytest.FixtureRequest, workshop: Workshop) -> tuple[Model, Arrays, str]:
    """The net with pools, its inputs, the name of its MaxPool; what is pooled has this zero point, and both signs."""
    model, inputs = int8_model(workshop, "pooled", ZEROS.index(request.param) - 1)
    (pool,) = (op for op in model.ops if is_max_pool(op))
    assert model.tensor_quants[pool.inputs[0]].zero == request.param
    return model, inputs, pool.name


def in_exact_copy(model: Model, inputs: Arrays, pool: str, folder: Path) -> dict[str, int | None]:
    """How many codes of each tensor differ from the model's reference in the copy that the gate judges by."""
    from accuracy_truth import compared

    write_exact_copy(model, {pool}, folder / "copy.mnn")
    copy = read_model(folder / "copy.mnn")
    trace = run(copy, inputs, RunOptions(TIMEOUT)).trace
    assert trace is not None
    return {one.op: one.unlike for one in compared(model, trace, inputs, copy=copy, pools=(pool,))}


def test_of_a_model_as_it_is_only_the_max_pool_differs_and_on_x86_only(pooled: tuple[Model, Arrays, str]) -> None:
    from accuracy_truth import compared

    model, inputs, pool = pooled
    trace = run(model, inputs, RunOptions(TIMEOUT)).trace
    assert trace is not None
    assert [op.int8 for op in trace if op.kind == "Pooling"] == [True, True]
    assert [one.op for one in compared(model, trace, inputs) if one.unlike] == ([] if pools_right() else [pool])


def test_the_exact_copy_pools_as_the_reference_does(pooled: tuple[Model, Arrays, str], tmp_path: Path) -> None:
    model, inputs, pool = pooled
    assert in_exact_copy(model, inputs, pool, tmp_path)[pool] == 0


def test_every_code_of_the_exact_copy_equals_the_reference(pooled: tuple[Model, Arrays, str], tmp_path: Path) -> None:
    model, inputs, pool = pooled
    assert {op: unlike for op, unlike in in_exact_copy(model, inputs, pool, tmp_path).items() if unlike != 0} == {}


def test_the_reference_means_what_the_weights_mean(workshop: Workshop) -> None:
    """Real arithmetic on decoded weights gives the same codes but for rounding: at most half a step, and a hair."""
    from integer_reference import codes_of, effective_quants, reference, values_of
    from trace_int8 import seen_of

    model, inputs = int8_model(workshop, "convolutions", 1)
    quants, op = effective_quants(model), model.convolutions[1]
    given, made = seen_of(model.path, [op.name], inputs)[op.name]
    before, after = quants[op.inputs[0]], quants[op.outputs[0]]
    codes = reference(model, op, [codes_of(given[0], before)], made.shape, quants)
    weight = torch.from_numpy(np.array(model.decoded(op))).double().reshape(*op.shape)
    bias = torch.from_numpy(np.array(model.vectors()[op.name])).double()
    x = torch.from_numpy(values_of(codes_of(given[0], before), before)).double()
    real = torch.nn.functional.conv2d(x, weight, bias, stride=2, padding=2).numpy() / after.scale + after.zero
    inside = (codes > after.low) & (codes < after.high)
    assert inside.mean() > 0.9
    assert np.abs(codes - real)[inside].max() < 0.501


def test_a_scale_that_is_off_by_a_thousandth_is_found(workshop: Workshop) -> None:
    from accuracy_truth import compared

    model, inputs = int8_model(workshop, "convolutions", 1)
    trace = run(model, inputs, RunOptions(TIMEOUT)).trace
    assert trace is not None
    tensor = model.convolutions[1].outputs[0]
    quant = model.tensor_quants[tensor]
    off = model.tensor_quants | {tensor: dataclasses.replace(quant, scale=quant.scale * 1.001)}
    other = dataclasses.replace(model, tensor_quants=off)
    found = {one.op: one.unlike for one in compared(other, trace, inputs, copy=model)}
    assert [op.name for op in model.convolutions if found[op.name]] == [op.name for op in model.convolutions[1:3]]


def test_operators_without_a_reference_are_named(workshop: Workshop) -> None:
    from integer_reference import NoReference, reference

    model = workshop.variant("mobile_net", "w8").model
    codes = np.zeros((1, *(op.shape[1] for op in model.convolutions[:1]), 4, 4), np.int64)
    with pytest.raises(NoReference, match=model.convolutions[0].name):
        reference(model, model.convolutions[0], [codes], codes.shape, {})
