"""What replaces submodules of a private copy computes the same, and custom code and hooks keep their effect."""

from __future__ import annotations

import copy
import io
from types import MethodType
from typing import Any

import pytest
import torch
from torch import nn

from pytest_mnnquant.sources.torch_module import private_copy

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Scaled2d(nn.InstanceNorm2d):
    """A norm with its own `forward`."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """The norm, clipped and scaled."""
        return torch.relu(super().forward(value)) * 3


class Stylized(nn.InstanceNorm2d):
    """A norm whose name doesn't end in its dimensions."""


class Shifted(nn.InstanceNorm2d):
    """A norm that computes the step itself."""

    def _apply_instance_norm(self, value: torch.Tensor) -> torch.Tensor:
        return value + 1


def plain() -> nn.Module:
    return nn.InstanceNorm2d(3, affine=True, track_running_stats=True)


def hooked() -> nn.Module:
    norm = plain()
    norm.register_forward_hook(lambda module, args, result: result * 3)
    return norm


def with_changed_input() -> nn.Module:
    norm = plain()
    norm.register_forward_pre_hook(lambda module, args: (args[0] - 2,))
    return norm


def with_assigned_forward() -> nn.Module:
    norm: Any = plain()
    norm.forward = MethodType(lambda self, value: value * self.running_mean.mean(), norm)
    return norm  # type: ignore[no-any-return]


def with_switched_statistics() -> nn.Module:
    norm: Any = plain()
    norm.track_running_stats = False
    return norm  # type: ignore[no-any-return]


def weight_normed() -> nn.Module:
    norm = plain()
    nn.utils.parametrize.register_parametrization(norm, "weight", nn.Softplus())
    return norm


NORMS = {
    "plain": plain,
    "without statistics": lambda: nn.InstanceNorm2d(3),
    "own forward": lambda: Scaled2d(3, affine=True, track_running_stats=True),
    "own name": lambda: Stylized(3, affine=True, track_running_stats=True),
    "own step": lambda: Shifted(3, affine=True, track_running_stats=True),
    "hook": hooked,
    "hook of inputs": with_changed_input,
    "assigned forward": with_assigned_forward,
    "switched statistics": with_switched_statistics,
    "parametrized": weight_normed,
}


def with_norm(norm: nn.Module) -> nn.Module:
    """A network with a norm that has the statistics of other images, in eval mode."""
    network = nn.Sequential(nn.Identity(), norm)
    network.train()(IMAGES * 5 + 2)
    return network.eval()


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (3, 8, 8)], ids=["batch", "sample"])
def test_a_copy_with_instance_norms_computes_the_same(kind: str, shape: tuple[int, ...]) -> None:
    network, value = with_norm(NORMS[kind]()), IMAGES.flatten()[: torch.Size(shape).numel()].reshape(shape)
    expected = network(value)
    copied = private_copy(network, "net")
    torch.testing.assert_close(copied(value), expected)
    torch.testing.assert_close(copy.deepcopy(copied)(value), expected)
    assert type(network[1]) is type(copy.deepcopy(network)[1])  # type: ignore[index]


@pytest.mark.filterwarnings("ignore")  # Of tracing.
@pytest.mark.parametrize("kind", ["plain", "own forward", "own name", "hook", "hook of inputs"])
def test_instance_norms_with_statistics_are_exported(kind: str) -> None:
    network = with_norm(NORMS[kind]())
    traced = torch.jit.trace(private_copy(network, "net"), IMAGES)  # type: ignore[no-untyped-call]
    text = str(traced.inlined_graph)
    assert "aten::batch_norm" in text
    assert "aten::instance_norm" not in text
    torch.testing.assert_close(traced(IMAGES), network(IMAGES))
    program = torch.export.export(private_copy(network, "net"), (IMAGES,))
    torch.testing.assert_close(program.module()(IMAGES), network(IMAGES))


def test_channels_equal_to_the_length_are_not_taken_for_samples() -> None:
    network = nn.Sequential(nn.InstanceNorm1d(5, affine=True, track_running_stats=True))
    network(torch.rand(4, 5, 5) * torch.arange(5)[:, None])
    value = torch.rand(5, 5)
    torch.testing.assert_close(private_copy(network, "net")(value), network.eval()(value))


def test_a_copy_with_norms_can_be_stored() -> None:
    copied, stored = private_copy(with_norm(plain()), "net"), io.BytesIO()
    torch.save(copied, stored)
    stored.seek(0)
    torch.testing.assert_close(torch.load(stored, weights_only=False)(IMAGES), copied(IMAGES))


class Doubling(torch.ao.quantization.MinMaxObserver):
    """An observer that changes the values."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Twice the values."""
        return value * 2


class Renamed(torch.ao.quantization.MinMaxObserver):
    """An observer that computes as torch's."""


def observer(**changes: Any) -> nn.Module:
    made: nn.Module = torch.ao.quantization.MinMaxObserver(**changes)
    return made


def hooked_observer() -> nn.Module:
    made = observer()
    made.register_forward_hook(lambda module, args, result: result * 2)
    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "is_removed"), [(observer, True), (Renamed, True), (Doubling, False), (hooked_observer, False)]
)
def test_observers_that_change_values_stay(make: Any, is_removed: bool) -> None:
    network = nn.Sequential(nn.ReLU(), make()).eval()
    copied = private_copy(network, "net")
    assert isinstance(copied[1], nn.Identity) == is_removed  # type: ignore[index]
    torch.testing.assert_close(copied(IMAGES), network(IMAGES))


class Halved(nn.Module):
    """A module that calls the network in it as torch.compile's wrapper does."""

    def __init__(self) -> None:
        super().__init__()
        self._orig_mod = nn.ReLU()

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Half of the positive values."""
        return self._orig_mod(value) / 2  # type: ignore[no-any-return]


@pytest.mark.parametrize("network", [Halved(), nn.Sequential(Halved())], ids=["network", "submodule"])
def test_only_wrappers_of_compilation_are_removed(network: nn.Module) -> None:
    torch.testing.assert_close(private_copy(network, "net")(IMAGES), network(IMAGES))


class Tripled(nn.DataParallel[nn.Module]):
    """A wrapper that changes what its network returns."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Three times the result."""
        return super().forward(value) * 3  # type: ignore[no-any-return]


def hooked_wrapper() -> nn.Module:
    wrapper: nn.Module = torch.optim.swa_utils.AveragedModel(nn.ReLU())
    wrapper.register_forward_hook(lambda module, args, result: result * 3)
    return wrapper


@pytest.mark.parametrize("make", [lambda: Tripled(nn.ReLU()), hooked_wrapper], ids=["own forward", "hook"])
def test_wrappers_that_change_results_stay(make: Any) -> None:
    network = make().eval()
    torch.testing.assert_close(private_copy(network, "net")(IMAGES), torch.relu(IMAGES) * 3)


class Scales(nn.Module):
    """Has another method that may become its `forward`."""

    factor = 2.0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """The values, scaled."""
        return value * self.factor

    def cubed(self, value: torch.Tensor) -> torch.Tensor:
        """The third power, scaled."""
        return value**3 * self.factor


@pytest.mark.filterwarnings("ignore")  # Of compilation.
@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda net: net.forward, IMAGES * 2),
        (lambda net: net.cubed, IMAGES**3 * 2),
        (lambda net: lambda value: value + 1, IMAGES + 1),
    ],
    ids=["own", "method", "function"],
)
def test_a_compiled_forward_computes_what_was_compiled(choose: Any, expected: torch.Tensor) -> None:
    network: Any = Scales().eval()
    network.forward = torch.compile(choose(network))
    copied = private_copy(network, "net")
    torch.testing.assert_close(copied(IMAGES), expected)
    assert not hasattr(copied.forward, "_torchdynamo_orig_callable")
