"""Modules that draw random numbers in eval mode, or compute with complex ones, are named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.sources.forward_operators import require_real, require_repeatable
from pytest_mnnquant.sources.spec import SourceError

X = (torch.arange(32, dtype=torch.float32).reshape(2, 16),)


class Drops(nn.Module):
    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, 0.5, training=self.always or self.training)


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


class Ignored(nn.Module):
    """Draws numbers that change nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0 * torch.rand(1)


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.fft.rfft(x).abs()
        return out


def around(inner: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.Sequential(nn.ReLU(), inner), nn.Flatten()).eval()


@pytest.mark.parametrize("inner", [Drops(always=True), Noise()])
def test_random_numbers_are_named(inner: nn.Module) -> None:
    with pytest.raises(SourceError, match=r"net: 1\.1 \(\w+\) draws random numbers"):
        require_repeatable(around(inner), X, "net")


@pytest.mark.parametrize("inner", [Drops(always=False), nn.Dropout(), Ignored(), Spectrum()])
def test_models_that_repeat_are_accepted(inner: nn.Module) -> None:
    require_repeatable(around(inner), X, "net")


def test_the_generator_and_the_model_stay_as_they_were() -> None:
    model, before = around(Noise()), torch.random.get_rng_state()
    with pytest.raises(SourceError):
        require_repeatable(model, X, "net")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_complex_numbers_are_named() -> None:
    with pytest.raises(SourceError, match=r"net: 1\.1 \(\w+\) computes with complex numbers"):
        require_real(around(Spectrum()), X, "net")
    require_real(around(Noise()), X, "net")


def test_the_code_of_the_model_itself_is_named() -> None:
    with pytest.raises(SourceError, match=r"net: forward\(\) \("):
        require_real(Spectrum(), X, "net")
