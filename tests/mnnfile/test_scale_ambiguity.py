"""Files whose results depend on addresses: found from the file alone."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_mnnquant.measurements.run import TracedOp
from pytest_mnnquant.mnnfile.int8_faults import NO_FAULTS, int8_faults
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant
from pytest_mnnquant.mnnfile.pooling import uncovered_pools
from pytest_mnnquant.mnnfile.scale_ambiguity import ambiguities
from pytest_mnnquant.mnnfile.storage import Storage
from tests.synthetic_evidence import model, stored

NAMES = ("image", "feature", "large", "fine", "high", "low", "coarse", "head", "tail")


def op(name: str, kind: str, inputs: tuple[int, ...], output: int) -> Op:
    weights = (stored(10, Storage.INTEGER, 8),) if kind == "Convolution" else ()
    ends = tuple(NAMES[i] for i in inputs), (NAMES[output],)
    return Op(name, kind, inputs, (output,), *ends, weights=weights)


def quant(scale: float, zero: float = 0.0) -> TensorQuant:
    return TensorQuant(scale, zero, -127.0, 127.0, "int8")


@pytest.fixture
def neck() -> Model:
    """A feature that goes upsampled into one Concat and unmodified into another."""
    ops = (
        op("image", "Input", (), 0),
        op("act", "Sigmoid", (0,), 1),
        op("up", "Interp", (1,), 2),
        op("other", "TanH", (0,), 3),
        op("cat1", "Concat", (2, 3), 4),
        op("conv1", "Convolution", (4,), 7),
        op("pool", "Sigmoid", (0,), 6),
        op("cat2", "Concat", (6, 1), 5),
        op("conv2", "Convolution", (5,), 8),
    )
    quants = {4: quant(0.02), 5: quant(0.006), 7: quant(0.1), 8: quant(0.1)}
    return model(ops, tensor_names=NAMES, output_names=("head", "tail"), tensor_quants=quants)


def test_tensor_scales_and_operator_are_named(neck: Model) -> None:
    (found,) = ambiguities(neck)
    assert (found.tensor, found.maker, found.operator) == ("feature", "Sigmoid act", "up")
    assert {(one.tensor, one.operator, one.scale) for one in found.reaching} == {
        ("high", "conv1", 0.02),
        ("low", "conv2", 0.006),
    }


def test_described_tensors_are_not_ambiguous(neck: Model) -> None:
    described = {**neck.tensor_quants, 1: quant(0.006), 2: quant(0.006)}
    assert ambiguities(dataclasses.replace(neck, tensor_quants=described)) == []


def test_equal_scales_are_not_ambiguous(neck: Model) -> None:
    same = {**neck.tensor_quants, 5: quant(0.02)}
    assert ambiguities(dataclasses.replace(neck, tensor_quants=same)) == []


def test_an_order_that_changes_no_value_is_not_ambiguous(neck: Model) -> None:
    """Without the Interp the feature is only moved: it is rounded to the joined tensor's codes, before or after."""
    moved = tuple(dataclasses.replace(one, kind="Reshape") if one.name == "up" else one for one in neck.ops)
    assert ambiguities(dataclasses.replace(neck, ops=moved)) == []


def test_float_models_are_not_looked_at(neck: Model) -> None:
    assert ambiguities(dataclasses.replace(neck, tensor_quants={})) == []


def test_operators_that_form_a_circle_end(neck: Model) -> None:
    circle = (op("a", "Reshape", (2,), 3), op("b", "Reshape", (3,), 2), op("c", "Convolution", (2,), 7))
    assert ambiguities(dataclasses.replace(neck, ops=circle)) == []


def test_an_interp_between_two_scales_is_a_fault(neck: Model) -> None:
    described = dataclasses.replace(neck, tensor_quants={1: quant(0.01), 2: quant(0.02)})
    (found,) = int8_faults(described, {"up"}).interps
    assert (found.name, found.ratio) == ("up", 2.0)
    assert int8_faults(described, {"act"}) == NO_FAULTS
    alike = dataclasses.replace(neck, tensor_quants={1: quant(0.01), 2: quant(0.0101)})
    assert int8_faults(alike, {"up"}) == NO_FAULTS


def test_pools_that_no_operator_of_the_file_explains_are_uncovered(neck: Model) -> None:
    names = [TracedOp(name, "Pooling", True).operator for name in ("made_raster_2", "known")]
    assert uncovered_pools(neck, names, {"known"}) == ("made",)
    assert uncovered_pools(neck, [], ()) == ()
