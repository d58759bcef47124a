"""Nothing that is done with a model reaches the caller's own."""

from __future__ import annotations

import random as python_random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.quantize.prepare import Choices, prepare
from pytest_mnnquant.quantize.recipes import RECIPES
from pytest_mnnquant.quantize.store import Store
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.runtime.execute import run
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import TIMEOUT, quietly
from tests.smallnets import Restless


@dataclass
class Snapshot:
    """All that a caller could notice of a model, of the data and of the process."""

    state: dict[str, torch.Tensor]
    flags: list[bool]
    wanted: list[bool]
    gradients: list[torch.Tensor | None]
    hooks: int
    data: bytes
    random: tuple[Any, ...]
    switches: tuple[Any, ...]

    @classmethod
    def of(cls, model: nn.Module, data: dict[str, Any]) -> Snapshot:
        generator = np.random.get_state()
        return cls(
            state={key: value.clone() for key, value in model.state_dict().items()},
            flags=[module.training for module in model.modules()],
            wanted=[parameter.requires_grad for parameter in model.parameters()],
            gradients=[None if p.grad is None else p.grad.clone() for p in model.parameters()],
            hooks=sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()),
            data=b"".join(array.tobytes() for array in data.values()),
            random=(torch.get_rng_state().numpy().tobytes(), repr(generator), python_random.getstate()),
            switches=(
                torch.is_grad_enabled(),
                torch.backends.mha.get_fastpath_enabled(),
                torch.get_default_dtype(),
                torch.get_num_threads(),
            ),
        )

    def same(self, other: Snapshot) -> bool:
        def equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
            return a is b or (a is not None and b is not None and torch.equal(a, b))

        return (
            self.state.keys() == other.state.keys()
            and all(torch.equal(value, other.state[key]) for key, value in self.state.items())
            and all(equal(a, b) for a, b in zip(self.gradients, other.gradients, strict=True))
            and (self.flags, self.wanted, self.hooks, self.data) == (other.flags, other.wanted, other.hooks, other.data)
            and (self.random, self.switches) == (other.random, other.switches)
        )


@pytest.fixture
def caller() -> tuple[Restless, dict[str, Any]]:
    """A model in the middle of a training: modes mixed, some parameters frozen, gradients pending."""
    torch.manual_seed(0)
    model = Restless()
    data = {"x": torch.randn(48, 1, 6, 6).numpy()}
    model(torch.from_numpy(data["x"])).sum().backward()
    model.norm.eval()
    model.head.bias.requires_grad_(False)
    return model, data


def variants(model: nn.Module, data: dict[str, Any], folder: Path) -> list[Variant]:
    choices = Choices(folder, calibration=data, evaluation=data, timeout=TIMEOUT)
    store = Store(folder / "store")
    source = prepare(Spec("net", "net"), choices, store, quietly, given=model)
    wanted = [("int8", "train"), ("int8", "eval"), ("w4", None)]
    return [make_variant(source, RECIPES[name], mode, (), choices, store, quietly) for name, mode in wanted]


def test_the_callers_model_data_and_process_are_as_before(
    caller: tuple[Restless, dict[str, Any]], tmp_path: Path
) -> None:
    before = Snapshot.of(*caller)
    variants(*caller, tmp_path)
    assert before.same(Snapshot.of(*caller))


def test_the_snapshot_notices_what_it_is_for(caller: tuple[Restless, dict[str, Any]]) -> None:
    model, data = caller
    before = Snapshot.of(model, data)
    assert before.same(Snapshot.of(model, data))
    torch.rand(1)
    assert not before.same(Snapshot.of(model, data))
    before = Snapshot.of(model, data)
    model.norm.train()(torch.ones(2, 8, 3, 3))
    assert not before.same(Snapshot.of(model, data))
    model.norm.eval()
    before = Snapshot.of(model, data)
    model.conv.weight.grad = None
    assert not before.same(Snapshot.of(model, data))


def test_each_mode_has_the_float_model_it_was_made_from(
    caller: tuple[Restless, dict[str, Any]], tmp_path: Path
) -> None:
    """Calibration in train mode leaves other statistics, and with them another float model; eval mode doesn't."""
    in_train, in_eval, weights = variants(*caller, tmp_path)
    assert in_train.drift > 0
    assert in_eval.drift == weights.drift == 0
    assert in_eval.base.path == weights.base.path != in_train.base.path
    moved, as_it_was = (
        run(variant.base, caller[1], timeout=TIMEOUT).outputs["output"] for variant in (in_train, in_eval)
    )
    assert not np.allclose(moved, as_it_was, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        expected = caller[0].eval()(torch.from_numpy(caller[1]["x"])).numpy()
    np.testing.assert_allclose(as_it_was, expected, rtol=1e-3, atol=1e-4)
