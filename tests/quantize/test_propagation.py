"""Where MNN carries a tensor's quantization beyond its layer, and ranges that are right there too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.metrics.agreement import agreement
from pytest_mnnquant.mnnfile.commands import AVERAGE_POOL, has_fused_relu, pool_kind
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.calibration import Range, make_params, save_params, widen_ranges
from pytest_mnnquant.quantize.described_tensors import describe_tensors
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.propagation import Propagated, find_propagated, ops_to_observe
from pytest_mnnquant.quantize.ranges import calibrate_runtime
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.recipes.recipe import Observer
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.smallnets import Residual
from tests.synthetic_evidence import layer
from tests.workshop import Workshop


@pytest.fixture(scope="module")
def inputs() -> dict[str, npt.NDArray[np.float32]]:
    return {"x": torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()}


@pytest.fixture(scope="module")
def residual(workshop: Workshop, inputs: dict[str, npt.NDArray[np.float32]]) -> Model:
    torch.manual_seed(0)
    return workshop.floats(Residual().eval(), inputs)


@pytest.fixture(scope="module")
def links(residual: Model) -> tuple[Propagated, ...]:
    return find_propagated(residual, int8_layers(residual))


@pytest.fixture(scope="module")
def seen(
    residual: Model, links: tuple[Propagated, ...], inputs: dict[str, npt.NDArray[np.float32]]
) -> dict[int, Range]:
    ops = (*int8_layers(residual), *(link.op for link in links))
    return calibrate_runtime(residual, ops, Dataset(dict(inputs)), RunOptions(TIMEOUT, batched=True)).ranges


def test_a_layers_input_is_followed_back_to_what_made_it(residual: Model, links: tuple[Propagated, ...]) -> None:
    gate, _ = int8_layers(residual)[2:]
    assert {(link.tensor, link.op.kind, link.clamps_at_zero) for link in links} == {(gate.inputs[0], "BinaryOp", True)}


def test_a_plain_net_carries_nothing(digits: Prepared) -> None:
    assert find_propagated(digits.model, int8_layers(digits.model)) == ()


def test_average_pools_are_observed_with_the_layers(residual: Model, links: tuple[Propagated, ...]) -> None:
    layers = int8_layers(residual)
    ops = ops_to_observe(residual, layers, links)
    pools = {op.name for op in residual.ops if pool_kind(op) == AVERAGE_POOL}
    assert pools
    assert pools <= {op.name for op in ops} - {op.name for op in layers}
    assert len({op.name for op in ops}) == len(ops)


def test_only_sums_with_a_relu_have_one() -> None:
    assert not has_fused_relu(layer("a"))
    assert not has_fused_relu(layer("a", kind="BinaryOp"))


def test_settled_ranges_are_wide_and_symmetric_where_they_must_be(
    residual: Model, links: tuple[Propagated, ...], seen: dict[int, Range]
) -> None:
    found = widen_ranges(seen, links)
    gate, _ = int8_layers(residual)[2:]
    assert found[gate.inputs[0]].affine()[1] == 0
    changed = {link.tensor for link in links}
    assert {key: value for key, value in found.items() if key not in changed} == {
        key: value for key, value in seen.items() if key not in changed
    }


def computed(
    workshop: Workshop,
    model: Model,
    ranges: dict[int, Range],
    inputs: dict[str, npt.NDArray[np.float32]],
    *,
    described: bool,
) -> Run:
    params = make_params(model, int8_layers(model), ranges)
    scale = params.layers[2].input
    path = save_params(params, model.path.with_name(f"{scale.zero_point if scale else None}.bin"))
    quantized = workshop.quantized(model, "--compressionParamsFile", str(path))
    if described:
        known = {model.tensor_names[tensor]: observed for tensor, observed in ranges.items()}
        options = RunOptions(TIMEOUT, batched=True)
        describe_tensors(quantized.path, model, known, Dataset(dict(inputs)), options, Observer())
        quantized = read_model(quantized.path)
    return run(quantized, inputs, RunOptions(TIMEOUT))


def test_with_settled_ranges_mnn_computes_what_float_does_and_without_it_does_not(
    workshop: Workshop,
    residual: Model,
    links: tuple[Propagated, ...],
    seen: dict[int, Range],
    inputs: dict[str, npt.NDArray[np.float32]],
) -> None:
    """Should the second half fail one day, MNN has mended its BinaryOp, and `carry` has become needless."""
    reference = run(residual, inputs, RunOptions(TIMEOUT)).outputs["output"]
    right = computed(workshop, residual, widen_ranges(seen, links), inputs, described=True)
    assert {op.name for op in right.trace or () if op.int8} >= {op.name for op in int8_layers(residual)}
    found = agreement(reference, right.outputs["output"])
    assert found.cosine is not None
    assert found.cosine > 0.999
    assert found.centred_sqnr_db > 20
    wrong = agreement(reference, computed(workshop, residual, seen, inputs, described=False).outputs["output"])
    assert wrong.centred_sqnr_db < 0
