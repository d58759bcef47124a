"""A private copy of a model is plain, without wrappers, computed weights, other types and devices; values are equal."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from pytest_mnnquant.sources import torch_module
from pytest_mnnquant.sources.pytorch import as_tensors, suppress_output
from pytest_mnnquant.sources.spec import SourceError
from pytest_mnnquant.sources.torch_module import (
    has_other_types,
    import_torch,
    is_graph,
    plain_module,
    private_copy,
    run_once,
)

X = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32))


def normed(kind: str) -> nn.Module:
    """Two layers, the first with a computed weight."""
    torch.manual_seed(0)
    first = nn.Linear(6, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        makers: dict[str, Callable[[], Any]] = {
            "weight_norm": lambda: weight_norm(first),
            "spectral_norm": lambda: spectral_norm(first),
            "new weight_norm": lambda: parametrizations.weight_norm(first),
            "new spectral_norm": lambda: parametrizations.spectral_norm(first),
            "orthogonal": lambda: parametrizations.orthogonal(first),
            "pruned": lambda: prune.l1_unstructured(first, "weight", 0.5),  # type: ignore[no-untyped-call]
        }
        return nn.Sequential(makers[kind](), nn.ReLU(), nn.Linear(5, 3))


def trained(model: nn.Module) -> nn.Module:
    """A model after a step of training and a run: computed weights are no leaves then."""
    optimizer = torch.optim.SGD(model.train().parameters(), 1e-2)
    model(X).pow(2).mean().backward()
    optimizer.step()
    model.eval()(X)
    return model


@pytest.mark.parametrize(
    "kind", ["weight_norm", "spectral_norm", "new weight_norm", "new spectral_norm", "orthogonal", "pruned"]
)
def test_computed_weights_are_stored(kind: str) -> None:
    model = trained(normed(kind))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    copied = private_copy(model, "m")
    assert set(copied.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert not any(parametrize.is_parametrized(module) or module._forward_pre_hooks for module in copied.modules())
    torch.testing.assert_close(copied(X), model(X))
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


class Keeps(nn.Module):
    """Keeps what it computed, as caches do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.last: Any = None
        self.known: dict[str, Any] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.layer(x)
        self.known["twice"] = [self.last * 2]
        result: torch.Tensor = self.last
        return result


def test_tensors_in_attributes_do_not_prevent_a_copy() -> None:
    model = trained(Keeps())
    torch.testing.assert_close(private_copy(model, "m")(X), model(X))


class Elsewhere(nn.Module):
    """Puts its inputs and its own tensors on a device that this machine lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.device = torch.device("cuda:0")
        self.table_device = "cuda"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x.to(self.device)) + torch.ones(3, device=self.table_device)
        return result


def test_a_model_for_another_device_runs_on_the_cpu() -> None:
    model = Elsewhere()
    torch.testing.assert_close(private_copy(model, "m")(X), model.layer(X) + 1)
    assert model.device.type == "cuda"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32(kind: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).to(kind)
    copied = private_copy(model, "m")
    assert not has_other_types(copied)
    assert {tensor.dtype for tensor in as_tensors({"x": X.numpy()}, copied)} == {torch.float32}
    assert model[0].weight.dtype is kind
    assert private_copy(model, "m", keep_types=True)[0].weight.dtype is kind  # type: ignore[index]


class Mixed(nn.Module):
    """Computes in bfloat16 where it may."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            result: torch.Tensor = self.layer(x)
        return result


def test_autocast_is_left_out_only_inside() -> None:
    model = private_copy(Mixed(), "m")
    with suppress_output():
        assert model(X).dtype is torch.float32
    assert model(X).dtype is torch.bfloat16


class Wraps(nn.Module):
    """Holds a compiled module."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.compile(nn.Linear(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.net(x)
        return result


@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile,
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda net: torch.compile(nn.DataParallel(net)),
    ],
    ids=["compile", "parallel", "averaged", "both"],
)
def test_wrappers_are_removed(wrap: Callable[[nn.Module], nn.Module]) -> None:
    with suppress_output():
        model = wrap(nn.Linear(6, 3))
    assert set(private_copy(model, "m").state_dict()) == {"weight", "bias"}


def test_compiled_submodules_are_unwrapped() -> None:
    with suppress_output():
        model = Wraps()
    assert set(private_copy(model, "m").state_dict()) == {"net.weight", "net.bias"}


class Lazy(nn.Module):
    """Builds its layers when it first sees an input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.LazyLinear(5), nn.LazyBatchNorm1d()
        self.head: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.first(x))
        if self.head is None:
            self.head = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))
        result: torch.Tensor = self.head(features)
        return result


def test_a_lazy_model_is_built_alike_each_time() -> None:
    model = Lazy()
    copies = [private_copy(model, "m") for _ in range(2)]
    results = [run_once(copied, lambda copied=copied: copied(X)) for copied in copies]  # type: ignore[misc]
    assert torch.equal(*results)
    assert not any(module.training for copied in copies for module in copied.modules())
    assert not any(parameter.requires_grad for copied in copies for parameter in copied.parameters())
    assert model.head is None


def test_graphs_are_known() -> None:
    model = nn.Linear(6, 3).eval()
    with suppress_output():
        scripted = torch.jit.script(model)
        exported = torch.export.export(model, (X,))
    assert [is_graph(private_copy(each, "m")) for each in (model, scripted, exported)] == [False, True, True]


@pytest.mark.parametrize("other", [{"weight": X}, None, "net.pt"], ids=["state", "none", "text"])
def test_other_objects_are_refused_with_a_fix(other: Any) -> None:
    with pytest.raises(SourceError) as raised:
        private_copy(other, "m")
    assert raised.value.fix


def test_plain_modules_stay_as_they_are() -> None:
    model = nn.Linear(6, 3)
    weight = model.weight
    assert plain_module(model) is model
    assert model.weight is weight


def test_workers_of_xdist_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(torch_module, "spare_cores", lambda: 0)
    try:
        import_torch("net")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_trained", [False, True])
def test_simulated_quantization_is_removed(is_trained: bool) -> None:
    quantization: Any = torch.ao.quantization
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    plain, images = private_copy(network, "net"), torch.rand(4, 3, 8, 8)
    if is_trained:
        network.train().qconfig = quantization.get_default_qat_qconfig("fbgemm")
        quantization.prepare_qat(network, inplace=True)
    else:
        network.eval().qconfig = quantization.get_default_qconfig("fbgemm")
        quantization.prepare(network, inplace=True)
    network(images)
    prepared = private_copy(network, "net")
    assert torch.equal(prepared(images), plain(images))
    assert torch.equal(network.eval()(images), plain(images)) != is_trained


class OddTensor(torch.Tensor):
    """A tensor that `copy.deepcopy` refuses."""


def test_weights_that_can_not_be_copied_are_named() -> None:
    network = nn.Sequential(nn.Linear(3, 4))
    network[0].weight = nn.Parameter(torch.ones(4, 3).as_subclass(OddTensor))
    with pytest.raises(SourceError, match=r"net: 0\.weight is a .*OddTensor"):
        private_copy(network, "net")
