"""The private copy of a PyTorch model computes what the caller's model computes, or is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.sources.copy_check import require_same_outputs
from pytest_mnnquant.sources.spec import SourceError
from pytest_mnnquant.sources.torch_module import private_copy

X = {"x": np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)}


class Net(nn.Module):
    """A layer with BatchNorm, whose result is `changed`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.changed(self.norm(self.layer(x)))

    def changed(self, y: torch.Tensor) -> torch.Tensor:
        return y


class ById(Net):
    """It finds a module by its address."""

    def __init__(self) -> None:
        super().__init__()
        self.gains = {id(self.layer): 2.0}

    def changed(self, y: torch.Tensor) -> torch.Tensor:
        return y * self.gains.get(id(self.layer), 1.0)


class LosesWeights(Net):
    """Its copy has other weights."""

    def __deepcopy__(self, memo: Any) -> LosesWeights:
        other = LosesWeights()
        nn.init.ones_(other.layer.weight)
        return other


class ByType(Net):
    """It computes something else in float32."""

    def changed(self, y: torch.Tensor) -> torch.Tensor:
        return y * 3 if y.dtype is torch.float16 else y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(self.layer.weight.dtype))


class Remembers(Net):
    """It keeps results, and moves a buffer in each run."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[torch.Tensor] = []
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(3))

    def changed(self, y: torch.Tensor) -> torch.Tensor:
        self.results.append(y)
        self.last = y
        self.mean += y.mean(0)
        return y


class OnGpu(Net):
    """It can't run here."""

    def changed(self, y: torch.Tensor) -> torch.Tensor:
        if not self.norm.weight.requires_grad:
            return y
        raise RuntimeError("no GPU")


def check(model: nn.Module) -> None:
    require_same_outputs(model, private_copy(model, "net"), X, "net")


@pytest.mark.parametrize("model", [ById(), LosesWeights(), ByType().half()], ids=lambda model: type(model).__name__)
def test_copies_that_compute_something_else_are_refused(model: nn.Module) -> None:
    with pytest.raises(SourceError, match="differs from the model itself in 'output'"):
        check(model)


@pytest.mark.parametrize(
    "model", [Net(), Net().half(), ByType(), OnGpu(), Remembers()], ids=lambda model: type(model).__name__
)
def test_others_are_accepted(model: nn.Module) -> None:
    check(model)


def test_the_callers_model_is_as_before() -> None:
    model = Remembers()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.results == []
    assert not hasattr(model, "last")
    assert model.training
    assert model.norm.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.mean is model._buffers["mean"]


class WithLazyNorm(nn.Module):
    """Its layers, buffers among them, get their sizes in the first run."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.LazyLinear(3), nn.LazyBatchNorm1d()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.layer(x))
        return result


def test_a_model_with_lazy_buffers_is_neither_run_nor_built() -> None:
    model = WithLazyNorm()
    require_same_outputs(model, private_copy(model, "m"), X, "m")
    assert isinstance(model.layer, nn.LazyLinear)
    assert isinstance(model.norm, nn.LazyBatchNorm1d)
