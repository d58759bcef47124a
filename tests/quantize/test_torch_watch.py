"""Watching a model: a value has one identity in every batch and in both modes, and watching changes nothing."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.quantize.torch_watch import Value, watch_values
from pytest_mnnquant.sources.pytorch import suppress_output
from tests.smallnets import Restless

Seen = dict[Value, torch.Tensor]


def watch(model: nn.Module, *inputs: torch.Tensor) -> Seen:
    """What one forward pass shows; no identity may be given twice."""
    seen: Seen = {}

    def see(value: Value, tensor: torch.Tensor) -> None:
        assert value not in seen
        seen[value] = tensor.clone()

    with suppress_output(), watch_values(model, see) as run:
        run(*inputs)
    return seen


def image(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


class Functional(nn.Module):
    """Dropout of every functional kind between operators that it must not push out of count."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.dropout(x * 2, 0.3, self.training) * 3
        x = functional.dropout(x, 0.3, self.training, inplace=True) / 2
        x = functional.alpha_dropout(x * 5, 0.3, self.training) / 7
        x = functional.feature_alpha_dropout(x, 0.3, self.training) + 1
        x = functional.dropout2d(x, 0.3, self.training) + 2
        out: torch.Tensor = torch.dropout(x, 0.3, self.training) * 11
        return out


class DropPath(nn.Module):
    """Stochastic depth as model zoos write it: noise by hand, in train mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.block(x) * 2
        if self.training:
            noise = y.new_empty(len(y), 1, 1, 1).bernoulli_(0.7)
            noise.div_(0.7)
            y = y * noise
        return (x + y) * 3


class Recurring(nn.Module):
    """Attention without weights, twice by the same module; a transformer's own layer after it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, dropout=0.3, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1, 2)
        for need_weights in (True, False, True):
            x = self.attention(x, x, x, need_weights=need_weights)[0]
        out: torch.Tensor = self.layer(x)
        return out


def make(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind()


@pytest.mark.parametrize("kind", [Restless, Functional, DropPath, Recurring])
def test_identities_are_the_same_in_train_and_eval_mode(kind: type[nn.Module]) -> None:
    model = make(kind)
    in_train, in_eval = watch(model.train(), image()), watch(model.eval(), image())
    assert list(in_train) == list(in_eval)
    assert {value: tensor.shape for value, tensor in in_train.items()} == {
        value: tensor.shape for value, tensor in in_eval.items()
    }


def test_the_same_identity_is_the_same_value_where_dropout_does_nothing() -> None:
    """A rate so small that nothing is dropped still runs dropout's operators; the statistics are the batch's own."""
    torch.manual_seed(0)
    model = Restless(p=1e-9)
    model.norm = nn.BatchNorm2d(8, affine=True, track_running_stats=False)
    in_train, in_eval = watch(model.train(), image()), watch(model.eval(), image())
    assert list(in_train) == list(in_eval)
    for value, tensor in in_eval.items():
        torch.testing.assert_close(in_train[value], tensor, msg=str(value))


@pytest.mark.parametrize("training", [True, False])
def test_identities_are_the_same_in_every_batch(training: bool) -> None:
    model = make(Restless).train(training)
    counts: Counter[Value] = Counter()
    with suppress_output(), watch_values(model, lambda value, _tensor: counts.update([value])) as run:
        for seed in range(3):
            run(image(seed))
    assert set(counts.values()) == {3}


def test_a_value_is_told_by_module_operator_and_turn() -> None:
    model = make(Restless).eval()
    seen = watch(model, image())
    names = {str(value) for value in seen}
    assert {"model:input0", "conv:convolution", "norm:native_batch_norm", "act:relu", "shared:convolution"} <= names
    assert "shared:convolution#1" in names  # the shared module's second call, under its first name
    assert not any(value.module.startswith("alias") for value in seen)
    (conv,) = (tensor for value, tensor in seen.items() if str(value) == "conv:convolution")
    assert isinstance(model, Restless)
    torch.testing.assert_close(conv, model.conv(image()))


def test_a_value_is_seen_before_it_is_changed_in_place() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)).eval()
    seen = watch(model, image())
    before = seen[Value("0", "add", 0)] if Value("0", "add", 0) in seen else seen[Value("0", "addmm", 0)]
    assert (before < 0).any()
    assert (seen[Value("1", "relu", 0)] >= 0).all()


def test_integers_and_moved_values_are_no_values_of_their_own() -> None:
    class Moving(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            order = x[0, 0, 0].argsort()
            out: torch.Tensor = x.permute(0, 2, 3, 1).reshape(3, -1)[:, order].t().contiguous().unsqueeze(0) + 1
            return out

    operators = [value.operator for value in watch(Moving(), image())]
    assert operators[-2:] == ["index", "add"]
    assert not {"permute", "t", "view", "clone", "unsqueeze"} & set(operators)


def test_watching_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(Restless).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    watch(model.eval(), image())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hooks_are_gone_after_a_failure() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(5, 5))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        watch(model, image())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled()
    assert model[0](image()).requires_grad
