"""Observers against what they are defined by: other people's formulas, brute force, and known distributions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pytest_mnnquant.quantize.calibration import Range
from pytest_mnnquant.quantize.observers import (
    BINS,
    Histogram,
    divergence,
    label_of,
    least_error,
    moving_average,
    percentile,
    take_range,
)
from pytest_mnnquant.recipes.recipe import Observer

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=200_000)
RELU = np.maximum(NORMAL, 0)
OUTLIER = np.concatenate([NORMAL, [100.0]])


def histogram(values: npt.NDArray[np.float64]) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(low, high, np.histogram(values, BINS, (low, high))[0].astype(float))


def quantized_error(values: npt.NDArray[np.float64], found: Range) -> float:
    scale, zero = found.affine()
    codes = np.clip(np.round(values / scale) + zero, -127, 127)
    return float(((codes - zero) * scale - values).__pow__(2).mean())


def mnncompress_range(batches: npt.NDArray[np.float64], momentum: float) -> tuple[float, float]:
    """What `_FeatureFakeQuantModule` of mnncompress 0.3.2 does to its min and max in offline mode."""
    zero = torch.Tensor([0.0])[0]
    rows = torch.tensor(batches, dtype=torch.float32)
    low, high = rows[0]
    for least, most in rows:
        inst_min, inst_max = torch.minimum(least, zero), torch.maximum(most, zero)
        scale = (inst_max - inst_min) / (2 * 127.0)
        point = torch.round((0 - inst_min) / scale - 127.0)
        nudge_min = torch.minimum((-127.0 - point) * scale, zero)
        nudge_max = torch.maximum((127.0 - point) * scale, zero)
        low = torch.minimum(momentum * low + (1 - momentum) * nudge_min, zero)
        high = torch.maximum(momentum * high + (1 - momentum) * nudge_max, zero)
    return float(low), float(high)


@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("momentum", [0.99, 0.9])
def test_the_moving_average_is_mnncompresss_to_the_last_bit(shift: float, momentum: float) -> None:
    batches = np.sort(RANDOM.normal(shift, 1, (50, 2)), axis=1)
    found = moving_average(batches, momentum)
    assert (found.low, found.high) == mnncompress_range(batches, momentum)


def test_the_first_batch_dominates_a_moving_average() -> None:
    batches = np.array([[-0.1, 0.1]] + [[-1.0, 1.0]] * 20)
    assert moving_average(batches, 0.99).high < 0.3
    assert take_range(Observer("minmax"), batches).high == 1.0


def test_a_batch_of_zeros_does_not_spoil_a_moving_average() -> None:
    found = moving_average(np.array([[0.0, 0.0], [-1.0, 1.0]]), 0.5)
    assert found.high == pytest.approx(0.5, rel=1e-2)


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9])
def test_a_percentile_leaves_out_as_much_as_it_says(percent: float) -> None:
    found = percentile(histogram(NORMAL), percent)
    inside = np.mean((found.low <= NORMAL) & (found.high >= NORMAL)) * 100
    assert inside == pytest.approx(percent, abs=0.1)
    assert found.low == pytest.approx(-found.high, rel=0.05)


def test_the_lower_end_of_a_relu_is_0_for_every_observer() -> None:
    batches, values = np.array([[0.0, RELU.max()]]), histogram(RELU)
    for name in ("minmax", "average", "percentile", "histogram", "kl"):
        assert take_range(Observer(name), batches, values).low == 0.0


def test_the_least_error_is_no_more_than_that_of_any_range_tried_by_brute_force() -> None:
    for values in (NORMAL, RELU, OUTLIER, RANDOM.laplace(size=50_000)):
        best = quantized_error(values, least_error(histogram(values)))
        low, high = values.min(), values.max()
        tried = [
            quantized_error(values, Range(low * a, high * b)) for a in (0.3, 0.6, 0.8, 1) for b in (0.3, 0.6, 0.8, 1)
        ]
        assert best <= 1.05 * min(tried)


@pytest.mark.parametrize("name", ["percentile", "kl"])
def test_a_lone_outlier_does_not_decide_the_range(name: str) -> None:
    found = take_range(Observer(name), np.array([[OUTLIER.min(), 100.0]]), histogram(OUTLIER))
    assert found.high < 20
    assert quantized_error(NORMAL, found) < quantized_error(NORMAL, Range(OUTLIER.min(), 100.0)) / 10


def test_kl_keeps_all_of_an_even_distribution() -> None:
    even = np.linspace(-1, 1, 100_000)
    found = divergence(histogram(even))
    assert (found.low, found.high) == pytest.approx((-1, 1), abs=0.05)


def test_kl_of_a_tensor_of_zeros_keeps_what_was_seen() -> None:
    mostly = Histogram(0.0, 1.0, np.eye(1, BINS)[0] * 100)
    assert divergence(mostly) == Range(0.0, 1.0)


@pytest.mark.parametrize("name", ["minmax", "average", "percentile", "histogram", "kl"])
def test_a_constant_tensor_has_the_range_of_its_value(name: str) -> None:
    found = take_range(Observer(name), np.array([[0.5, 0.5], [0.5, 0.5]]), Histogram(0.5, 0.5, np.zeros(BINS)))
    assert found.high == pytest.approx(0.5)
    assert found.affine()[0] > 0


def test_an_observer_is_told_with_its_number() -> None:
    assert label_of(Observer("minmax")) == "minmax"
    assert label_of(Observer("average")) == "average0.99"
    assert label_of(Observer("percentile", 99.9)) == "percentile99.9"
