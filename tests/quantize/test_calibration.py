"""Ranges become scales and zero points that hold what was seen; params name what MNN looks for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.mnnfile.params import read_params
from pytest_mnnquant.quantize.calibration import Range, make_params, weight_scales
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.ranges import calibrate_runtime
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

VALUES = st.floats(-1e6, 1e6)
PAIRS = st.tuples(VALUES, VALUES).map(sorted)
RANGES = st.builds(lambda pair, symmetric: Range(pair[0], pair[1], symmetric), PAIRS, st.booleans())


@given(RANGES)
def test_scale_and_zero_point_are_ones_that_mnn_can_mean(found: Range) -> None:
    scale, zero = found.affine()
    assert math.isfinite(scale)
    assert scale >= np.float32(1e-8)
    assert -127 <= zero <= 127
    assert isinstance(zero, int)


@given(RANGES)
def test_every_value_of_the_range_has_a_code_within_a_step(found: Range) -> None:
    scale, zero = found.affine()
    # Half a step for the code, half for the zero point, which is rounded so that 0 is exact.
    for value in (found.low, found.high, (found.low + found.high) / 2, 0.0):
        if min(found.low, 0) <= value <= max(found.high, 0):
            code = max(-127, min(127, round(value / scale) + zero))
            assert abs(scale * (code - zero) - value) <= scale * (1 + 1e-6)


@given(PAIRS)
def test_symmetric_ranges_have_zero_point_0_and_lose_nothing(pair: list[float]) -> None:
    scale, zero = Range(pair[0], pair[1], symmetric=True).affine()
    assert zero == 0
    assert 127 * scale >= max(abs(pair[0]), abs(pair[1])) * (1 - 1e-9)


@given(RANGES, RANGES, RANGES)
def test_merging_holds_both_in_any_order(first: Range, second: Range, third: Range) -> None:
    both = first.merged(second)
    assert both == second.merged(first)
    assert both.low == min(first.low, second.low)
    assert both.high == max(first.high, second.high)
    assert both.symmetric == (first.symmetric or second.symmetric)
    assert both.merged(third) == first.merged(second.merged(third))
    assert first.merged(first) == first


@given(RANGES, RANGES)
def test_a_wider_range_has_no_finer_scale(first: Range, second: Range) -> None:
    wide = Range(min(first.low, second.low), max(first.high, second.high), first.symmetric)
    assert wide.affine()[0] >= first.affine()[0]


@pytest.mark.parametrize(
    ("found", "scale", "zero"),
    [
        (Range(0.0, 1.0), 1 / 254, -127),
        (Range(-1.0, 0.0), 1 / 254, 127),
        (Range(-1.0, 1.0), 1 / 127, 0),
        (Range(0.5, 2.54), 0.01, -127),
        (Range(0.0, 0.0), 1e-8, -127),
        (Range(0.0, 1.27, symmetric=True), 0.01, 0),
        (Range(0.0, 0.0, symmetric=True), 1e-8, 0),
    ],
    ids=str,
)
def test_known_ranges(found: Range, scale: float, zero: int) -> None:
    assert found.affine() == pytest.approx((scale, zero))


def test_layers_for_int8_are_those_that_mnn_runs_in_int8(digits: Prepared, workshop: Workshop) -> None:
    assert int8_layers(digits.model) == digits.model.layers
    transformer = workshop.prepared("tiny_transformer").model
    assert {op.kind for op in transformer.layers} == {"Convolution", "Const"}
    assert {op.kind for op in int8_layers(transformer)} == {"Convolution"}


def test_ranges_of_mnns_own_run_are_those_of_the_data(digits: Prepared) -> None:
    data = digits.calibration
    assert data is not None
    first, *_, last = digits.model.layers
    found = calibrate_runtime(digits.model, digits.model.layers, data, RunOptions(TIMEOUT, batched=True)).ranges
    assert set(found) == {tensor for op in digits.model.layers for tensor in (op.inputs[0], op.outputs[0])}
    assert found[first.inputs[0]] == Range(float(data.inputs["x"].min()), float(data.inputs["x"].max()))
    assert found[first.outputs[0]].low == 0
    assert found[last.outputs[0]].low < 0 < found[last.outputs[0]].high
    only = calibrate_runtime(
        digits.model, (first,), data, RunOptions(TIMEOUT, batched=True), only={first.inputs[0]}
    ).ranges
    assert only == {first.inputs[0]: found[first.inputs[0]]}


def test_params_name_output_tensors_and_carry_each_channels_scale(digits: Prepared, digits_int8: Variant) -> None:
    model = digits.model
    ranges = {tensor: Range(-1.0, 1.0) for op in model.layers for tensor in (op.inputs[0], op.outputs[0])}
    params = make_params(model, model.layers, ranges)
    assert params.uuid == model.uuid
    assert [entry.name for entry in params.layers] == [op.output_names[0] for op in model.layers]
    for entry, op in zip(params.layers, model.layers, strict=True):
        peaks = np.abs(model.decoded(op)).max(1)
        np.testing.assert_allclose(entry.weight.scales, peaks / 127, rtol=1e-6)
        assert entry.input is not None
        assert (entry.input.name, entry.input.zero_point) == (op.input_names[0], 0)
        assert (entry.input.clamp_min, entry.input.clamp_max) == (-127, 127)
    assert digits_int8.params is not None
    written = read_params(digits_int8.params)
    assert [entry.name for entry in written.layers] == [entry.name for entry in params.layers]


def test_a_dead_channel_has_a_scale_above_zero() -> None:
    scales = weight_scales(np.array([[0.0, 0.0], [1.27, -0.5]], np.float32))
    assert scales.tolist() == [pytest.approx(1e-8), pytest.approx(0.01)]
