"""What a monitor sees of pipelines of many kinds; those that do nothing wrong give no fact against them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from pytest_mnnquant.measurements.calibration import Observations
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.pipeline_monitor import Calibration, PipelineMonitor

BATCHES = 4


class Averaging(nn.Module):
    """A fake quantizer whose scale follows what passes through it, as mnncompress's does."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        peak = x.detach().abs().max() / 127
        self.scale.copy_(peak if self.scale == 0 else 0.9 * self.scale + 0.1 * peak)
        return x


class Extremes(nn.Module):
    """An observer like PyTorch's own."""

    min_val: torch.Tensor
    max_val: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("min_val", torch.tensor(float("inf")))
        self.register_buffer("max_val", torch.tensor(float("-inf")))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.min_val = torch.minimum(self.min_val, x.min())
        self.max_val = torch.maximum(self.max_val, x.max())
        return x


class Net(nn.Module):
    """A module that runs twice, a BatchNorm, a Dropout, a nested Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.Dropout(0.5)))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x).mean((2, 3)))
        return out


Pipeline = Callable[[nn.Module, Any], None]


def observe(pipeline: Pipeline, model: nn.Module | None = None, samples: int = 32 * BATCHES - 5) -> Observations:
    torch.manual_seed(0)
    model = Net() if model is None else model
    model.eval()
    data = Dataset({"x": np.random.default_rng(0).normal(size=(samples, 1, 8, 8)).astype(np.float32)})
    monitor = PipelineMonitor(model)
    with monitor:
        pipeline(model, Calibration(data, model, True, monitor))
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks
    return monitor.observations()


def observed(model: nn.Module, observer: Callable[[], nn.Module] = Averaging) -> fx.GraphModule:
    """A copy of the net with an observer at its input and output, made by torch.fx."""
    graph = fx.symbolic_trace(copy.deepcopy(model))
    for number, node in enumerate([*graph.graph.nodes][:1] + [*graph.graph.nodes][-2:-1]):
        graph.add_module(f"observer{number}", observer())
        with graph.graph.inserting_after(node):
            seen = graph.graph.call_module(f"observer{number}", (node,))
        node.replace_all_uses_with(seen, lambda user, seen=seen: user is not seen)
    graph.recompile()
    return graph


@torch.no_grad()
def loop(net: nn.Module, calibration: Any) -> None:
    for inputs in calibration:
        net(*inputs)


HEALTHY = Observations(handed_out=BATCHES, forwards=BATCHES)

# Pipelines that do nothing wrong


def plain(model: nn.Module, calibration: Any) -> None:
    loop(model, calibration)


def with_observers(model: nn.Module, calibration: Any) -> None:
    loop(observed(model), calibration)


def with_extremes(model: nn.Module, calibration: Any) -> None:
    loop(observed(model, Extremes), calibration)


def gathered(model: nn.Module, calibration: Any) -> None:
    loop(observed(model), list(calibration))


@torch.no_grad()
def preprocessed(model: nn.Module, calibration: Any) -> None:
    net = observed(model)
    for (x,) in calibration:
        net((x - 0.1) / 0.9)


@torch.no_grad()
def wrapped_with_keywords(model: nn.Module, calibration: Any) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Identity(), copy.deepcopy(model))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.net(image)
            return out

    wrapper = Wrapper()
    for inputs in calibration:
        wrapper(image=inputs[0])


def exported_first(model: nn.Module, calibration: Any) -> None:
    net = copy.deepcopy(model)
    torch.jit.trace(net, torch.ones(1, 1, 8, 8))  # type: ignore[no-untyped-call]
    torch.export.export(net, (torch.ones(2, 1, 8, 8),))
    loop(net, calibration)


def compiled(model: nn.Module, calibration: Any) -> None:
    net = observed(model)
    net.compile(backend="eager")
    quick: Any = torch.compile(net, backend="eager")
    loop(quick, calibration)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "pipeline",
    [plain, with_observers, with_extremes, gathered, preprocessed, wrapped_with_keywords, exported_first, compiled],
)
def test_healthy_pipelines_give_no_fact_against_them(pipeline: Pipeline) -> None:
    assert observe(pipeline) == HEALTHY


def test_calibration_data_can_be_gone_through_again_and_left_early() -> None:
    def pipeline(model: nn.Module, calibration: Any) -> None:
        net = observed(model)
        assert len(calibration) == BATCHES
        assert [inputs[0].shape[0] for inputs in calibration] == [32, 32, 32, 27]
        loop(net, calibration)
        for number, inputs in enumerate(calibration):
            if number == 2:
                break
            loop(net, [inputs])

    assert observe(pipeline) == Observations(handed_out=2 * BATCHES + 3, forwards=BATCHES + 2)


# Facts


def loud(calibration: Any) -> list[tuple[torch.Tensor]]:
    return [(x * 20,) for (x,) in calibration]


@torch.no_grad()
def evaluated(model: nn.Module, calibration: Any) -> None:
    net = observed(model)
    loop(net, calibration)
    loop(net, loud(calibration))


@torch.no_grad()
def evaluated_with_extremes(model: nn.Module, calibration: Any) -> None:
    net = observed(model, Extremes)
    loop(net, calibration)
    loop(net, loud(calibration))


@torch.no_grad()
def preprocessed_and_evaluated(model: nn.Module, calibration: Any) -> None:
    net = observed(model)
    for (x,) in calibration:
        net(x / 2)
    loop(net, [(torch.full((32, 1, 8, 8), 30.0),)])


@torch.no_grad()
def gathered_and_evaluated(model: nn.Module, calibration: Any) -> None:
    net = observed(model)
    batches = list(calibration)
    loop(net, batches)
    loop(net, loud(batches))


@pytest.mark.parametrize(
    "pipeline", [evaluated, evaluated_with_extremes, preprocessed_and_evaluated, gathered_and_evaluated]
)
def test_scales_that_move_afterwards_are_seen(pipeline: Pipeline) -> None:
    found = observe(pipeline).moved
    assert sorted(found) == ["observer0", "observer1"]
    assert all(after > 1.5 * before for before, after in found.values())


@pytest.mark.filterwarnings("ignore")
def test_an_export_with_a_wild_dummy_moves_scales_and_is_no_pass(tmp_path: Path) -> None:
    def pipeline(model: nn.Module, calibration: Any) -> None:
        net = observed(model)
        loop(net, calibration)
        torch.onnx.export(net, (torch.full((1, 1, 8, 8), 1000.0),), str(tmp_path / "net.onnx"), dynamo=False)
        net.train()(torch.ones(2, 1, 8, 8))  # What comes after the export calibrated nothing.

    found = observe(pipeline)
    assert (found.forwards, found.gradients, found.training) == (BATCHES, False, False)
    assert found.moved["observer0"][1] > 10 * found.moved["observer0"][0]


def test_gradients_and_train_mode_are_seen() -> None:
    def with_gradients(model: nn.Module, calibration: Any) -> None:
        for inputs in calibration:
            model(*inputs)

    def in_train_mode(model: nn.Module, calibration: Any) -> None:
        loop(model.train(), calibration)

    def a_copy_in_train_mode(model: nn.Module, calibration: Any) -> None:
        loop(copy.deepcopy(model).train(), calibration)

    assert observe(with_gradients) == Observations(BATCHES, BATCHES, gradients=True)
    found = observe(in_train_mode)
    assert (found.training, found.gradients, found.drift > 0.01, found.weight_change) == (True, False, True, 0)
    assert observe(a_copy_in_train_mode) == Observations(BATCHES, BATCHES, training=True)


def test_no_pass_at_all_is_seen() -> None:
    assert observe(lambda _model, calibration: print(len(calibration))) == Observations()
    assert observe(lambda _model, calibration: print(len(list(calibration)))) == Observations(handed_out=BATCHES)


def test_changed_and_replaced_weights_are_seen() -> None:
    @torch.no_grad()
    def changed(model: nn.Module, _calibration: Any) -> None:
        model.head.weight.mul_(0.5)  # type: ignore[union-attr,operator]

    def replaced(model: nn.Module, _calibration: Any) -> None:
        model.head = nn.Linear(4, 2)

    def taken_out(model: nn.Module, _calibration: Any) -> None:
        model.head = nn.Identity()

    assert observe(changed).weight_change == pytest.approx(0.5)
    assert observe(replaced).weight_change > 0.5
    assert observe(taken_out).weight_change == 1


def test_a_pass_that_raises_does_not_confuse_the_watcher() -> None:
    def pipeline(model: nn.Module, calibration: Any) -> None:
        net = observed(model)
        with pytest.raises(RuntimeError):
            net(torch.ones(1, 3, 8, 8))
        loop(net, calibration)
        loop(net, loud(calibration))

    assert sorted(observe(pipeline).moved) == ["observer0", "observer1"]


@pytest.mark.filterwarnings("ignore")
def test_pytorchs_own_quantization_is_watched_too() -> None:
    quantize_fx = pytest.importorskip("torch.ao.quantization.quantize_fx")

    def pipeline(model: nn.Module, calibration: Any) -> None:
        mapping = torch.ao.quantization.get_default_qconfig_mapping("x86")
        net = quantize_fx.prepare_fx(copy.deepcopy(model), mapping, (torch.ones(1, 1, 8, 8),))
        loop(net, calibration)
        if spoil:
            loop(net, loud(calibration))

    for spoil in (False, True):
        found = observe(pipeline)
        assert (found.gradients, found.training, bool(found.moved)) == (False, False, spoil)
        assert found.forwards == BATCHES * (1 + spoil)
