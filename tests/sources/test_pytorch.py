"""A PyTorch model as a source: a copy is used, the caller's is left alone, and what is exported is what was given."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.pytorch import (
    ExportOptions,
    as_tensors,
    export,
    outputs,
    suppress_output,
)
from pytest_mnnquant.sources.pytorch_batches import batch_form
from pytest_mnnquant.sources.spec import SourceError
from pytest_mnnquant.sources.torch_call import flat_outputs, forward_inputs
from pytest_mnnquant.sources.torch_module import private_copy
from tests.conftest import TIMEOUT
from tests.smallnets import TwoWays
from tests.workshop import Workshop


def two_ways() -> tuple[TwoWays, Dataset]:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    inputs = {
        "image": random.standard_normal((5, 2, 8, 8)).astype(np.float32),
        "extra": random.standard_normal((5, 5)).astype(np.float32),
    }
    return TwoWays().eval(), Dataset(inputs)


class Mutable(nn.Module):
    """A model with state of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        out: torch.Tensor = self.norm(self.linear(x.mul_(2)))
        return out


def test_a_private_copy_shares_nothing_with_the_callers_model() -> None:
    model = Mutable()
    model(torch.ones(4, 3)).sum().backward()
    assert model.linear.weight.grad is not None
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gradient = model.linear.weight.grad.clone()
    copy = private_copy(model, "m")
    assert not any(module.training for module in copy.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in copy.parameters())
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
        copy.train()(torch.ones(4, 3))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert all(module.training for module in model.modules())
    assert torch.equal(model.linear.weight.grad, gradient)
    assert model.linear.weight.requires_grad


def test_what_is_no_module_or_can_not_be_copied_is_a_source_error() -> None:
    with pytest.raises(SourceError, match=r"^m: .*dict.*torch\.nn\.Module"):
        private_copy({}, "m")
    model = nn.Linear(2, 2)
    vars(model)["lock_of_a_file"] = (number for number in range(3))
    with pytest.raises(SourceError, match="m: the model can't be copied: TypeError"):
        private_copy(model, "m")


class Optional(nn.Module):
    def forward(self, x: Any = None, y: Any = 1) -> Any:
        return x


class KeywordOnly(nn.Module):
    def forward(self, x: Any, *rest: Any, flag: bool = False, **more: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("model", "names"), [(TwoWays(), ("image", "extra")), (Optional(), ("x",)), (KeywordOnly(), ("x",))], ids=str
)
def test_inputs_are_the_required_parameters(model: nn.Module, names: tuple[str, ...]) -> None:
    assert forward_inputs(model, "m").names(()) == names


def test_tensors_are_copies_of_the_arrays() -> None:
    array = np.ones((2, 3), np.float32)
    (tensor,) = as_tensors({"x": array}, torch.nn.Identity())
    tensor.mul_(5)
    assert (array == 1).all()


def test_outputs_are_flattened_in_the_order_of_export() -> None:
    a, b, c = (torch.full((1,), float(number)) for number in range(3))
    assert flat_outputs(a) == [a]
    assert flat_outputs((a, [b, {"k": c}], None, 3)) == [a, b, c]
    assert flat_outputs({"z": a, "a": b}) == [a, b]


def test_outputs_are_those_of_all_samples_in_order() -> None:
    model, data = two_ways()
    many = Dataset({name: np.concatenate([array] * 9) for name, array in data.inputs.items()})
    mixed, seen = outputs(model, many, "m")
    assert (mixed.shape, seen.shape) == ((45, 7), (45, 4, 6, 6))
    with torch.no_grad():
        expected = model(*as_tensors(data.inputs, model))
    for number in (0, 8):
        part = slice(5 * number, 5 * number + 5)
        np.testing.assert_allclose(mixed[part], expected[0].numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(seen[part], expected[1].numpy(), rtol=1e-5, atol=1e-6)


def test_running_a_model_leaves_random_state_and_data_alone() -> None:
    data, model = Dataset({"x": np.ones((4, 3), np.float32)}), nn.Sequential(nn.Dropout(0.5), Mutable())
    state = torch.get_rng_state()
    outputs(model, data, "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert (data.inputs["x"] == 1).all()


def test_a_model_that_fails_on_the_data_is_named_with_their_shapes() -> None:
    with pytest.raises(SourceError, match=r"m: the model fails on d\.npz \(x \(4, 7\)\): RuntimeError: mat1"):
        outputs(nn.Linear(3, 2), Dataset({"x": np.ones((4, 7), np.float32)}, origin="d.npz"), "m")
    with pytest.raises(SourceError, match="returns no tensors"):
        outputs(Optional(), Dataset({"x": np.ones((0, 7), np.float32)}), "m")


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("dynamic", [True, False])
def test_exported_inputs_and_outputs_are_named_after_the_model(tmp_path: Path, exporter: str, dynamic: bool) -> None:
    """An optional number in `forward` must not become an input of the exported model."""
    model, data = two_ways()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(model, data, tmp_path / "m.onnx", ExportOptions("m", exporter, dynamic))
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    assert [item.name for item in graph.input] == ["image", "extra"]
    assert [item.name for item in graph.output] == ["output", "output1"]
    first = graph.input[0].type.tensor_type.shape.dim[0]
    assert (first.dim_value == 0) == dynamic
    assert list(tmp_path.iterdir()) == [tmp_path / "m.onnx"]
    assert "forward" not in vars(model)


def test_a_model_of_two_inputs_computes_the_same_in_mnn(workshop: Workshop) -> None:
    model, data = two_ways()
    swapped = {"extra": data.inputs["extra"], "image": data.inputs["image"]}
    ran = run(workshop.floats(model, swapped), data.inputs, RunOptions(TIMEOUT))
    for name, expected in zip(("output", "output1"), outputs(model, data, "m"), strict=True):
        np.testing.assert_allclose(ran.outputs[name], expected, rtol=1e-4, atol=1e-5)


class Unexportable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.linalg.eigvals(x).real
        return out


class VersionError(Exception):
    """Like protobuf's own, when onnx was made for a newer one."""


class Unfitting(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            raise VersionError("gencode 6.31.1 runtime 5.29.6")
        return x


@pytest.mark.parametrize("missing", [True, False])
def test_a_package_that_the_exporter_lacks_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    if missing:
        monkeypatch.setitem(sys.modules, "onnx", None)
    model = nn.Linear(4, 2) if missing else Unfitting()
    data = Dataset({"input" if missing else "x": np.ones((4, 4), np.float32)})
    with pytest.raises(SourceError, match=r"exporter failed: .*: pip install 'pytest-mnnquant\[torch\]'$"):
        export(model, data, tmp_path / "m.onnx", ExportOptions("m"))


@pytest.mark.parametrize(("exporter", "other"), [("torchscript", "dynamo"), ("dynamo", "torchscript")])
def test_a_failed_export_says_why_and_names_the_other_exporter(
    tmp_path: Path, exporter: str, other: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = Dataset({"x": np.eye(3, dtype=np.float32)[None].repeat(2, 0)})
    with pytest.raises(SourceError, match=f"m: the {exporter} exporter failed: .*--mnn-exporter={other}"):
        export(Unexportable(), data, tmp_path / "m.onnx", ExportOptions("m", exporter))
    assert capfd.readouterr().out == ""


def test_quiet_keeps_warnings_and_prints_away_and_puts_settings_back(capfd: pytest.CaptureFixture[str]) -> None:
    fast = torch.backends.mha.get_fastpath_enabled()
    with suppress_output():
        warnings.warn("hidden", stacklevel=1)
        print("hidden")
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert capfd.readouterr().out == ""
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", UserWarning, stacklevel=1)


class Mixes(nn.Module):
    """Written for a batch of one: `reshape` mixes samples that come together."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, 4, -1).mean(2)


class Refuses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x.reshape(1, -1))
        return out


class Fails(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("never")


@pytest.mark.parametrize(
    ("network", "shape", "takes"),
    [
        (nn.Linear(8, 3), (5, 8), True),
        (Mixes(), (5, 4, 6), False),
        (Refuses(), (5, 8), False),
        (Refuses(), (1, 8), True),
        (Fails(), (5, 8), True),
    ],
)
def test_models_that_take_one_sample_at_a_time_are_noticed(
    network: nn.Module, shape: tuple[int, ...], takes: bool
) -> None:
    data = Dataset({"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)})
    assert batch_form(network.eval(), data).alone != takes


def test_one_at_a_time_every_sample_has_its_own_output() -> None:
    data = Dataset({"x": np.arange(96, dtype=np.float32).reshape(4, 4, 6)}, alone=True)
    (found,) = outputs(Mixes(), data, "net")
    assert np.array_equal(found, data.inputs["x"].mean(2))
