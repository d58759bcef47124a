"""Tensors of the float model are bound to the PyTorch values they hold, and calibrated there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from pytest_mnnquant.quantize.binding import Binding, Calibrated, bind, calibrate, moments
from pytest_mnnquant.quantize.calibration import int8_layers, runtime_ranges
from pytest_mnnquant.quantize.prepare import Prepared
from pytest_mnnquant.sources.data import Dataset
from pytest_mnnquant.sources.pytorch import digest
from tests.conftest import TIMEOUT, Workshop

ARRAYS = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32, allow_subnormal=False))


@given(ARRAYS, st.randoms(use_true_random=False))
def test_moments_do_not_depend_on_the_order(values: np.ndarray, random: object) -> None:
    shuffled = values.tolist()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = moments(values), moments(torch.tensor(shuffled))
    assert first is not None
    assert second is not None
    assert first.matches(second)
    assert second.matches(first)


@given(ARRAYS, st.integers(0, 39), st.floats(0.1, 10))
def test_one_other_number_of_size_is_noticed(values: np.ndarray, place: int, change: float) -> None:
    other = values.copy()
    other[place % len(values)] += change * (1 + np.abs(values).max())
    first, second = moments(values), moments(other)
    assert first is not None
    assert second is not None
    assert not first.matches(second)


def test_rounding_is_forgiven_and_other_counts_are_not() -> None:
    values = np.linspace(-3, 5, 100, dtype=np.float32)
    exact = moments(values)
    assert exact is not None
    rounded, longer = moments(values * np.float32(1 + 1e-5)), moments(np.append(values, values))
    assert rounded is not None
    assert longer is not None
    assert exact.matches(rounded)
    assert not exact.matches(longer)


@pytest.mark.parametrize("values", [[], [np.nan], [1, np.inf], [1e300, 1e300]], ids=str)
def test_empty_and_broken_values_have_no_moments(values: list[float]) -> None:
    assert moments(torch.tensor(values, dtype=torch.float64)) is None


def bound(source: Prepared) -> Binding:
    assert source.network is not None
    assert source.calibration is not None
    layers = int8_layers(source.model)
    return bind(source.network, source.model, layers, source.calibration, timeout=TIMEOUT, batched=source.batched)


def calibrated(source: Prepared, mode: str, data: Dataset | None = None) -> Calibrated:
    assert source.network is not None
    data = data or source.calibration
    assert data is not None
    limits = {"timeout": TIMEOUT, "batched": source.batched}
    layers = int8_layers(source.model)
    return calibrate(source.network, source.model, layers, bound(source), data, mode, **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["digits_cnn", "mobile_net", "tiny_transformer", "garment_classifier"])
def test_every_layer_of_the_shipped_models_is_bound_to_where_it_is_made(workshop: Workshop, name: str) -> None:
    source = workshop.prepared(name)
    binding = bound(source)
    assert None not in binding.values.values()
    assert source.network is not None
    known = dict(source.network.named_modules())
    for op in int8_layers(source.model):
        module = known[binding.modules[op.name]]
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.numel() == op.weight_count


@pytest.mark.parametrize("name", ["mobile_net", "tiny_transformer"])
def test_calibration_in_eval_mode_sees_what_mnn_computes(workshop: Workshop, name: str) -> None:
    """The ranges of MNN's own float run prove each binding: another value has another range."""
    source = workshop.prepared(name)
    assert source.calibration is not None
    some = Dataset(source.calibration.head(64))
    found = calibrated(source, "eval", some)
    own = runtime_ranges(source.model, int8_layers(source.model), some, timeout=TIMEOUT, batched=True)
    assert found.from_runtime == ()
    assert found.drift == 0
    assert set(found.ranges) == set(own)
    for tensor, seen in found.ranges.items():
        size = own[tensor].high - own[tensor].low
        assert (seen.low, seen.high) == pytest.approx((own[tensor].low, own[tensor].high), abs=2e-2 * size)


def test_calibration_in_train_mode_moves_a_copys_batch_norm_only(digits: Prepared) -> None:
    assert digits.network is not None
    assert digits.calibration is not None
    before = digest(digits.network)
    found = calibrated(digits, "train", Dataset({"x": 3 * digits.calibration.head(64)["x"] + 5}))
    assert digest(digits.network) == before
    assert digest(found.network) != before
    assert not any(module.training for module in found.network.modules())
    old, new = (dict(network.named_buffers()) for network in (digits.network, found.network))
    deviations = [
        float(((new[name] - old[name]).abs() / old[name.replace("mean", "var")].sqrt()).max())
        for name in old
        if name.endswith("running_mean")
    ]
    assert found.drift == pytest.approx(max(deviations))
    assert found.drift > 1
    weights = [dict(network.named_parameters()) for network in (digits.network, found.network)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_calibration_in_train_mode_is_the_same_every_time(digits: Prepared) -> None:
    torch.manual_seed(1)
    first = calibrated(digits, "train")
    torch.manual_seed(2)
    second = calibrated(digits, "train")
    assert first.ranges == second.ranges
    assert digest(first.network) == digest(second.network)


def test_a_tensor_that_no_pytorch_value_holds_is_calibrated_on_mnns_own_run(digits: Prepared) -> None:
    assert digits.network is not None
    assert digits.calibration is not None
    layers, some = int8_layers(digits.model), Dataset(digits.calibration.head(32))
    lost = layers[1].outputs[0]
    binding = bound(digits)
    partly = Binding({**binding.values, lost: None}, binding.modules)
    found = calibrate(
        digits.network, digits.model, layers, partly, some, "eval", timeout=TIMEOUT, batched=digits.batched
    )
    assert found.from_runtime == (lost,)
    whole = calibrated(digits, "eval", some)
    assert found.ranges[lost].high == pytest.approx(whole.ranges[lost].high, rel=1e-3)
    assert {key: value for key, value in found.ranges.items() if key != lost} == {
        key: value for key, value in whole.ranges.items() if key != lost
    }


def test_ranges_hold_the_extremes_of_all_batches(digits: Prepared) -> None:
    assert digits.calibration is not None
    images = digits.calibration.head(96)["x"].copy()
    images[80] *= 9
    first = int8_layers(digits.model)[0].inputs[0]
    found = calibrated(digits, "eval", Dataset({"x": images})).ranges[first]
    assert (found.low, found.high) == (images.min(), images.max())
