"""The evaluation copy pools int8 exactly, on every machine; nothing else of the model changes."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.pooling import is_max_pool, write_exact_copy
from pytest_mnnquant.quantize.calibration import Range, make_params, save_params
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.runtime.inference import run, tensor_values
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
RANGES = [Range(-1.5, 2.5), Range(-2.0, 2.0), Range(-3.0, 0.4)]


def inputs() -> dict[str, npt.NDArray[np.float32]]:
    return {"input": torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)).numpy()}


@pytest.fixture(scope="module")
def base(workshop: Workshop) -> Model:
    """Conv, MaxPool, and a convolution that passes codes through unchanged, so that outputs are what was pooled."""
    torch.manual_seed(0)
    through = nn.Conv2d(8, 8, 1, bias=False)
    through.weight.data = torch.eye(8).reshape(8, 8, 1, 1)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), through)
    return workshop.floats(net.eval(), inputs())


@pytest.fixture(scope="module")
def int8(workshop: Workshop, base: Model) -> Callable[..., Model]:
    """The net in int8, its pool between tensors of one range."""

    def make(pooled: Range, *flags: str) -> Model:
        first, last = int8_layers(base)
        ranges = {first.inputs[0]: Range(-3.0, 3.0)}
        ranges |= dict.fromkeys((first.outputs[0], last.inputs[0], last.outputs[0]), pooled)
        path = base.path.with_name(f"{pooled.low}{pooled.high}.bin")
        save_params(make_params(base, (first, last), ranges), path)
        return workshop.quantized(base, "--compressionParamsFile", str(path), *flags)

    return make


def pool_of(model: Model) -> str:
    (name,) = (op.name for op in model.ops if is_max_pool(op))
    return name


def codes(values: npt.NDArray[np.float32], pooled: Range) -> npt.NDArray[np.int64]:
    scale, zero = pooled.affine()
    exact = values / scale + zero
    found: npt.NDArray[np.int64] = np.round(exact).astype(np.int64)
    assert np.abs(exact - found).max() < 1e-3
    return found


def pooled_codes(model: Model, pooled: Range) -> npt.NDArray[np.int64]:
    """The integer reference: maxima over windows of the codes that MNN's first convolution gave."""
    before, _ = tensor_values(
        model, [op for op in model.ops if op.name == pool_of(model)], inputs(), RunOptions(TIMEOUT)
    )[pool_of(model)]
    assert before is not None
    found: npt.NDArray[np.int64] = codes(before, pooled).reshape(4, 8, 4, 2, 4, 2).max((3, 5))
    return found


@pytest.mark.parametrize("pooled", RANGES, ids=str)
def test_the_copy_computes_the_integer_reference(int8: Callable[..., Model], pooled: Range, tmp_path: Path) -> None:
    model = int8(pooled)
    assert write_exact_copy(model, {pool_of(model)}, tmp_path / "copy.mnn") == (pool_of(model),)
    outputs = run(read_model(tmp_path / "copy.mnn"), inputs(), RunOptions(TIMEOUT)).outputs["output"]
    np.testing.assert_array_equal(codes(outputs, pooled), pooled_codes(model, pooled))


@pytest.mark.skipif(not X86, reason="only MNN's x86 kernels compare offset bytes as signed numbers")
@pytest.mark.parametrize("pooled", RANGES, ids=str)
def test_the_model_itself_pools_wrongly_on_x86(int8: Callable[..., Model], pooled: Range) -> None:
    """Should this fail one day, MNN has mended its kernel and the copy has become needless."""
    model = int8(pooled)
    ran = run(model, inputs(), RunOptions(TIMEOUT))
    assert ("Pooling", True) in [(op.kind, op.int8) for op in ran.trace or ()]
    wrong = codes(ran.outputs["output"], pooled)
    right = pooled_codes(model, pooled)
    assert (wrong != right).mean() > 0.02
    assert (wrong <= right).all()  # a window of both signs gives its largest negative code


def test_the_copy_differs_in_nothing_but_the_pools_quantization(int8: Callable[..., Model], tmp_path: Path) -> None:
    model = int8(RANGES[0])
    write_exact_copy(model, {pool_of(model)}, tmp_path / "copy.mnn")
    copy = read_model(tmp_path / "copy.mnn")
    assert copy.ops == model.ops
    assert (copy.uuid, copy.inputs, copy.output_names) == (model.uuid, model.inputs, model.output_names)
    for ours, theirs in zip(copy.layers, model.layers, strict=True):
        np.testing.assert_array_equal(copy.decoded(ours), model.decoded(theirs))
    (pool,) = (op for op in model.ops if is_max_pool(op))
    before, after = model.tensor_quants[pool.inputs[0]], copy.tensor_quants[pool.outputs[0]]
    assert copy.tensor_quants[pool.inputs[0]] == before
    assert after == dataclasses.replace(before, zero=after.zero)
    assert after.zero != before.zero
    assert int(after.zero) == int(before.zero)
    others = set(model.tensor_quants) - {pool.outputs[0]}
    assert {index: copy.tensor_quants[index] for index in others} == {i: model.tensor_quants[i] for i in others}


def test_external_weights_go_with_the_copy(int8: Callable[..., Model], tmp_path: Path) -> None:
    model = int8(RANGES[0], "--saveExternalData")
    assert model.external_path is not None
    write_exact_copy(model, {pool_of(model)}, tmp_path / "copy.mnn")
    copy = read_model(tmp_path / "copy.mnn")
    assert copy.external_missing == 0
    np.testing.assert_array_equal(copy.decoded(copy.layers[0]), model.decoded(model.layers[0]))


@pytest.mark.parametrize("chosen", [set(), {"no such operator"}, {"output"}], ids=str)
def test_nothing_is_written_where_no_max_pool_is_named(
    int8: Callable[..., Model], chosen: set[str], tmp_path: Path
) -> None:
    assert write_exact_copy(int8(RANGES[0]), chosen, tmp_path / "copy.mnn") == ()
    assert not (tmp_path / "copy.mnn").exists()


def test_nothing_is_written_for_a_float_model(base: Model, tmp_path: Path) -> None:
    assert write_exact_copy(base, {pool_of(base)}, tmp_path / "copy.mnn") == ()
    assert not (tmp_path / "copy.mnn").exists()


def test_average_pools_are_no_max_pools(workshop: Workshop) -> None:
    kinds = [op.kind for op in workshop.prepared("mobile_net").model.ops if is_max_pool(op)]
    assert kinds == []
    assert sum(is_max_pool(op) for op in workshop.prepared("digits_cnn").model.ops) == 2


def test_quantization_is_found_behind_operators_that_only_change_the_shape(
    int8: Callable[..., Model], tmp_path: Path
) -> None:
    """Where neither side of a pool is described, MNN carries back what a later tensor has."""
    model = int8(RANGES[0])
    (pool,) = (op for op in model.ops if is_max_pool(op))
    quant = model.tensor_quants[pool.inputs[0]]
    shaped = len(model.tensor_names)
    reshape = dataclasses.replace(pool, name="r", kind="Reshape", inputs=pool.outputs, outputs=(shaped,))
    names = (*model.tensor_names, "shaped")
    lonely = dataclasses.replace(model, ops=(*model.ops, reshape), tensor_names=names, tensor_quants={shaped: quant})
    lonely = dataclasses.replace(lonely, output_names=("shaped",))
    assert write_exact_copy(lonely, {pool.name}, tmp_path / "copy.mnn") == (pool.name,)
    written = read_model(tmp_path / "copy.mnn").tensor_quants
    assert written[pool.inputs[0]] == quant
    assert written[pool.outputs[0]].scale == quant.scale
    assert written[pool.outputs[0]].zero == pytest.approx(quant.zero, rel=1e-6)
