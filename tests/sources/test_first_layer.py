"""The shape that a chain of layers takes, if its first layer says it."""

from __future__ import annotations

import pytest
from torch import nn

from pytest_mnnquant.sources.first_layer import expected_shape

pytestmark = pytest.mark.torch

CHAINS = {
    "(samples, 3, height, width)": nn.Sequential(nn.Sequential(nn.Dropout(), nn.Conv2d(3, 4, 3)), nn.ReLU()),
    "(samples, 2, length)": nn.Sequential(nn.Identity(), nn.Conv1d(2, 4, 3)),
    "(samples, 1, depth, height, width)": nn.Conv3d(1, 4, 3),
    "(samples, ..., 7)": nn.Sequential(nn.Linear(7, 2)),
    "(samples, ...) of 784 values each": nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
    "": nn.Sequential(nn.ReLU(), nn.Linear(7, 2)),
}


@pytest.mark.parametrize("expected", CHAINS)
def test_the_first_layer_says_the_shape(expected: str) -> None:
    assert expected_shape(CHAINS[expected]) == expected


@pytest.mark.parametrize("model", [nn.Sequential(), nn.LSTM(3, 4), nn.Sequential(nn.BatchNorm2d(3))])
def test_what_the_first_layer_does_not_say_is_not_claimed(model: nn.Module) -> None:
    assert expected_shape(model) == ""
