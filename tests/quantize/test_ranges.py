"""Calibration sees every value of the model, in either mode, and leaves the caller's model alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.ranges import MINMAX, Calibrated, calibrate_runtime, calibrate_torch
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.recipes.recipe import Observer
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.model_digest import digest
from tests.conftest import TIMEOUT
from tests.quantize.test_tensor_binding import bound
from tests.workshop import Workshop


def calibrated(source: Prepared, mode: str, data: Dataset | None = None, observer: Observer = MINMAX) -> Calibrated:
    assert source.network is not None
    data = data or source.calibration
    assert data is not None
    options = RunOptions(TIMEOUT, batched=source.batched)
    found = calibrate_torch(bound(source), data, mode, observer, options)
    assert found.network is not None
    return found


@pytest.mark.parametrize("name", ["mobile_net", "tiny_transformer"])
def test_calibration_in_eval_mode_sees_what_mnn_computes(workshop: Workshop, name: str) -> None:
    """The ranges of MNN's own float run prove each binding: another value has another range."""
    source = workshop.prepared(name)
    assert source.calibration is not None
    some = Dataset(source.calibration.head(64))
    found = calibrated(source, "eval", some)
    own = calibrate_runtime(source.model, int8_layers(source.model), some, RunOptions(TIMEOUT, batched=True)).ranges
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
    assert found.network is not None
    assert digest(digits.network) == before
    assert digest(found.network) != before
    assert not any(module.training for module in found.network.modules())
    old, new = (dict(network.named_buffers()) for network in (digits.network, found.network))
    deviations = []
    for name in old:
        if name.endswith("running_mean"):
            spread = name.replace("mean", "var")
            deviations.append(float(((new[name] - old[name]).abs() / old[spread].sqrt()).max()))
            deviations.append(float(((new[spread].sqrt() / old[spread].sqrt()) - 1).abs().max()))
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
    assert first.network is not None
    assert second.network is not None
    assert digest(first.network) == digest(second.network)


def test_a_tensor_that_no_pytorch_value_holds_is_calibrated_on_mnns_own_run(digits: Prepared) -> None:
    assert digits.network is not None
    assert digits.calibration is not None
    layers, some = int8_layers(digits.model), Dataset(digits.calibration.head(32))
    lost = layers[1].outputs[0]
    binding = bound(digits)
    partly = dataclasses.replace(binding, values={**binding.values, lost: None}, exits=None)
    options = RunOptions(TIMEOUT, batched=digits.batched)
    found = calibrate_torch(partly, some, "eval", MINMAX, options)
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


def test_a_model_without_layers_for_int8_has_no_ranges(digits: Prepared) -> None:
    """Such as a network whose layers are all in the bodies of conditions."""
    assert digits.calibration is not None
    result = calibrate_runtime(digits.model, (), digits.calibration, RunOptions(TIMEOUT, batched=True))
    assert result == Calibrated({}, {})


@pytest.mark.parametrize("observer", ["percentile", "histogram", "kl"])
def test_observers_that_clip_stay_inside_what_was_seen(digits: Prepared, observer: str) -> None:
    whole, cut = calibrated(digits, "eval"), calibrated(digits, "eval", observer=Observer(observer))
    assert whole.ranges.keys() == cut.ranges.keys()
    narrower = 0
    for tensor, seen in whole.ranges.items():
        found, step = cut.ranges[tensor], (seen.high - seen.low) / 100
        assert seen.low - step <= found.low <= found.high <= seen.high + step
        narrower += found.high - found.low < 0.98 * (seen.high - seen.low)
    assert narrower


@pytest.mark.parametrize("observer", [Observer("average"), Observer("percentile", 99), Observer("kl")], ids=str)
def test_observers_see_the_same_in_pytorch_and_in_mnns_own_run(digits: Prepared, observer: Observer) -> None:
    assert digits.calibration is not None
    some, layers = Dataset(digits.calibration.head(96)), int8_layers(digits.model)
    ours = calibrated(digits, "eval", some, observer).ranges
    theirs = calibrate_runtime(digits.model, layers, some, RunOptions(TIMEOUT, batched=True), observer).ranges
    for tensor, found in ours.items():
        size = theirs[tensor].high - theirs[tensor].low
        assert (found.low, found.high) == pytest.approx((theirs[tensor].low, theirs[tensor].high), abs=2e-2 * size)


def test_in_train_mode_a_histogram_is_of_the_values_that_gave_the_range(digits: Prepared) -> None:
    """It takes a second pass, which must start from the statistics that the first one started from."""
    assert digits.calibration is not None
    moved = Dataset({"x": 3 * digits.calibration.head(64)["x"] + 5})
    whole = calibrated(digits, "train", moved)
    nearly_all = calibrated(digits, "train", moved, Observer("percentile", 100))
    assert nearly_all.drift == whole.drift
    for tensor, seen in whole.ranges.items():
        step = (seen.high - seen.low) / 1000
        found = nearly_all.ranges[tensor]
        assert (found.low, found.high) == pytest.approx((seen.low, seen.high), abs=step)
