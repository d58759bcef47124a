"""Nothing that is done with a model reaches the caller's own."""

from __future__ import annotations

import copy
import random as python_random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.names import RECIPES
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
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


Caller = tuple[Restless, dict[str, Any]]


def caller() -> Caller:
    """A model in the middle of a training: modes mixed, some parameters frozen, gradients pending."""
    torch.manual_seed(0)
    model = Restless()
    data = {"x": torch.randn(48, 1, 6, 6).numpy()}
    model(torch.from_numpy(data["x"])).sum().backward()
    model.norm.eval()
    model.head.bias.requires_grad_(False)
    return model, data


@dataclass
class Made:
    """A caller's model and data, what was to be seen of them before and after, and what was made of them."""

    model: Restless
    data: dict[str, Any]
    before: Snapshot
    after: Snapshot
    in_train: Variant
    in_eval: Variant
    weights: Variant


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    model, data = caller()
    choices = Choices(folder, calibration=data, evaluation=data, timeout=TIMEOUT)
    store = Store(folder / "store")
    before = Snapshot.of(model, data)
    source = prepare(Spec("net", "net"), choices, store, quietly, given=model)
    wanted = [("int8", "train"), ("int8", "eval"), ("w4", None)]
    variants = [make_variant(Job(source, RECIPES[name], mode, (), choices), store, quietly) for name, mode in wanted]
    return Made(model, data, before, Snapshot.of(model, data), *variants)


def test_the_callers_model_data_and_process_are_as_before(made: Made) -> None:
    assert made.before.same(made.after)


def test_the_snapshot_notices_what_it_is_for() -> None:
    model, data = caller()
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


def test_each_mode_has_the_float_model_it_was_made_from(made: Made) -> None:
    """Calibration in train mode leaves other statistics, and with them another float model; eval mode doesn't."""
    assert made.in_train.drift > 0
    assert made.in_eval.drift == made.weights.drift == 0
    assert made.in_eval.base.path == made.weights.base.path != made.in_train.base.path
    moved, as_it_was = (
        run(variant.base, made.data, RunOptions(TIMEOUT)).outputs["output"] for variant in (made.in_train, made.in_eval)
    )
    assert not np.allclose(moved, as_it_was, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        expected = copy.deepcopy(made.model).eval()(torch.from_numpy(made.data["x"])).numpy()
    np.testing.assert_allclose(as_it_was, expected, rtol=1e-3, atol=1e-4)
