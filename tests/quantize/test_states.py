"""Models with states run through sequences: each step gets what the step before left, in every source and run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.evidence.variant_runs import hides_outputs
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.measurements.sequences import Sequences
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.sources.pytorch import ExportOptions, export
from pytest_mnnquant.sources.spec import DataError, Spec, parse_spec
from tests.conftest import TIMEOUT

Array = npt.NDArray[Any]
LENGTHS = (5, 5, 5)
FRAMES = np.random.default_rng(0).standard_normal((3, 5, 6)).astype(np.float32)


class Step(nn.Module):
    """One step of two layers: the state is (layers, samples, features)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.out = nn.GRUCell(6, 8), nn.GRUCell(8, 8), nn.Linear(8, 2)

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = self.first(frame, state[0])
        second = self.second(first, state[1])
        return self.out(second), torch.stack([first, second])


def rolled(network: nn.Module) -> tuple[Array, Array]:
    """The output of each step and the state before it, from PyTorch itself."""
    outputs, states = [], []
    with torch.no_grad():
        for sequence in torch.from_numpy(FRAMES):
            state = torch.zeros(2, 1, 8)
            for frame in sequence:
                states.append(state.numpy().reshape(-1))
                output, state = network(frame[None], state)
                outputs.append(output.numpy()[0])
    return np.stack(outputs), np.stack(states)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module", params=["torch", "fixed", "dynamic"])
def prepared(request: pytest.FixtureRequest, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The network as a PyTorch model, and as ONNX files."""
    network, folder = Step().eval(), tmp_path_factory.mktemp("net")
    if request.param == "torch":
        data = {"frame": FRAMES, "state": np.zeros((3, 2, 8), np.float32)}
        choices = Choices(folder, data, {"frame": FRAMES}, timeout=TIMEOUT, states={"state": "output1"})
        return prepare(Spec("net", "net"), choices, store, lambda _: None, network)
    axes = SampleAxes({"state": 1}, {"output": 0, "output1": 1})
    example = Dataset({"frame": FRAMES[0], "state": np.zeros((5, 2, 8), np.float32)}, axes=axes.inputs)
    export(network, example, folder / "net.onnx", ExportOptions("net", dynamic=request.param == "dynamic", axes=axes))
    choices = Choices(folder, {"frame": FRAMES}, {"frame": FRAMES}, timeout=TIMEOUT, states={"state": "output1"})
    return prepare(parse_spec("net.onnx", folder), choices, store, lambda _: None)


def test_each_step_has_the_state_before_it(prepared: Prepared) -> None:
    _, states = rolled(Step().eval())
    for data in (prepared.calibration, prepared.evaluation):
        assert data is not None
        assert (data.lengths, data.samples, list(data.inputs)) == (LENGTHS, 15, ["frame", "state"])
        np.testing.assert_allclose(data.inputs["state"].reshape(15, -1), states, atol=1e-5)


def test_a_run_feeds_its_own_states_back(prepared: Prepared) -> None:
    assert prepared.evaluation is not None
    assert prepared.sequences is not None
    frozen = {**prepared.evaluation.inputs, "state": np.zeros_like(prepared.evaluation.inputs["state"])}
    options = dataclasses.replace(prepared.options(TIMEOUT), sequences=prepared.sequences)
    expected, _ = rolled(Step().eval())
    name = next(name for name in prepared.model.output_names if name != prepared.states["state"])
    np.testing.assert_allclose(run(prepared.model, frozen, options).outputs[name], expected, atol=1e-5)
    through_module = dataclasses.replace(options, through_module=True)
    np.testing.assert_allclose(run(prepared.model, frozen, through_module).outputs[name], expected, atol=1e-5)
    # A file that lists no outputs: its tensors have the names.
    names, unlisted = prepared.model.output_names, dataclasses.replace(prepared.model, output_names=())
    np.testing.assert_allclose(run(unlisted, frozen, options, names).outputs[name], expected, atol=1e-5)
    # In sequences of one step, each starts from the given states.
    alone = dataclasses.replace(options, sequences=Sequences(prepared.states, (1,) * 15))
    assert not np.allclose(run(prepared.model, frozen, alone).outputs[name], expected, atol=1e-3)


def test_an_output_is_hidden_in_a_file_that_lists_none_if_another_operator_reads_it(prepared: Prepared) -> None:
    model, read = prepared.model, prepared.states["state"]
    unlisted = dataclasses.replace(model, output_names=())
    assert hides_outputs(unlisted, model.output_names) == any(read in op.input_names for op in model.ops)
    last = tuple(name for name in model.output_names if name != read)
    assert not hides_outputs(unlisted, last)
    assert not hides_outputs(unlisted, (*last, "missing"))
    assert not hides_outputs(model, model.output_names)


@pytest.mark.parametrize(
    ("states", "problem"),
    [
        ({"stat": "output1"}, "unknown input 'stat'"),
        ({"state": "output7"}, "unknown output 'output7'"),
        ({"state": "output"}, "has shape"),
        ({"state": "output1", "frame": "output"}, "all inputs"),
    ],
)
def test_states_that_the_model_can_not_have_are_named(
    states: dict[str, str], problem: str, store: Store, tmp_path: Path
) -> None:
    data = {"frame": FRAMES, "state": np.zeros((3, 2, 8), np.float32)}
    choices = Choices(tmp_path, data, data, timeout=TIMEOUT, states=states)
    with pytest.raises(DataError, match=problem):
        prepare(Spec("net", "net"), choices, store, lambda _: None, Step().eval())


def test_a_state_of_unknown_size_must_be_given(store: Store, tmp_path: Path) -> None:
    choices = Choices(tmp_path, {"frame": FRAMES}, {"frame": FRAMES}, timeout=TIMEOUT, states={"state": "output1"})
    with pytest.raises(DataError, match="the size of this state is unknown"):
        prepare(Spec("net", "net"), choices, store, lambda _: None, Step().eval())
