"""How a PyTorch model takes batches is found by running it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import Axis
from pytest_mnnquant.sources.pytorch import outputs
from pytest_mnnquant.sources.pytorch_batches import batch_form

ROWS = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)


class Recogniser(nn.Module):
    """An LSTM whose output is (time, samples, classes); its input too, unless `pictures`."""

    def __init__(self, pictures: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pictures, self.rnn = pictures, nn.LSTM(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.rnn(x.permute(1, 0, 2) if self.pictures else x)[0]
        return result


class Step(nn.Module):
    """One step of a GRU of two layers: the state is (layers, samples, features)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(4, 6, 2, batch_first=True)

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result, after = self.gru(frame[:, None], state)
        return result[:, 0], after


def random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_an_output_that_counts_time_first_counts_samples_second() -> None:
    network, data = Recogniser(True).eval(), Dataset({"x": random(8, 5, 4)})
    form = batch_form(network, data)
    assert (form.alone, dict(form.axes.outputs)) == (False, {"output": 1})
    (together,) = outputs(network, form.apply(data), "net", form.axes.outputs)
    assert together.shape == (8, 5, 6)
    expected = network(torch.from_numpy(data.inputs["x"])).detach().numpy().swapaxes(0, 1)
    np.testing.assert_allclose(together, expected, atol=1e-6)


def test_an_input_that_counts_time_first_counts_samples_second() -> None:
    network, data = Recogniser(False).eval(), Dataset({"x": random(5, 8, 4)})
    form = batch_form(network, data)
    assert dict(form.axes.inputs) == {"x": 1}
    made = form.apply(data)
    assert (made.samples, made.batch(3)["x"].shape) == (8, (5, 3, 4))


@pytest.mark.parametrize(
    ("state", "declared", "axis"),
    [((8, 2, 6), {}, 1), ((8, 2, 1, 6), {}, None), ((8, 2, 6), {"state": 1}, 1)],
    ids=["without the axis", "whole", "declared"],
)
def test_states_of_layers_are_fed_as_the_model_takes_them(
    state: tuple[int, ...], declared: dict[str, Axis], axis: Axis
) -> None:
    network, data = Step().eval(), Dataset({"frame": random(8, 4), "state": random(*state)}, axes=declared)
    form = batch_form(network, data)
    assert dict(form.axes.inputs) == {"state": axis}
    first, after = outputs(network, form.apply(data), "net", form.axes.outputs)
    assert (first.shape, after.shape[0]) == ((8, 6), 8)
    alone = torch.from_numpy(data.inputs["state"][:1].reshape(2, 1, 6))
    expected = network(torch.from_numpy(data.inputs["frame"][:1]), alone)
    np.testing.assert_allclose(after[0].reshape(-1), expected[1].detach().numpy().reshape(-1), atol=1e-6)


def test_a_picture_without_a_sample_axis_is_one_sample() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)).eval()
    form = batch_form(network, Dataset({"x": random(3, 8, 8)}))
    assert form.is_one
    assert form.apply(Dataset({"x": random(3, 8, 8)})).inputs["x"].shape == (1, 3, 8, 8)


def test_items_of_a_data_set_that_are_batches_are_split() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()).eval()
    data = Dataset({"x": random(3, 4, 3, 8, 8)}, np.arange(12).reshape(3, 4), items=3)
    form = batch_form(network, data)
    samples = form.apply(data)
    assert (form.is_batches, form.alone, samples.samples) == (True, False, 12)
    np.testing.assert_array_equal(samples.inputs["x"][5], data.inputs["x"][1, 1])
    assert samples.labels is not None
    assert samples.labels.tolist() == list(range(12))


class Reader(nn.Module):
    """A GRU over time, which the first axis counts: one row per sample, the mean where `mask` is 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.GRU(4, 6)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        values, weights = self.rnn(x)[0], mask[..., None]
        result: torch.Tensor = (values * weights).sum(0) / weights.sum(0)
        return result


@pytest.mark.parametrize(("items", "labels"), [(1, False), (3, False), (3, True)])
def test_time_first_is_noticed_if_as_many_steps_as_samples_were_given(items: int, labels: bool) -> None:
    """Batches of five sequences of five steps each."""
    batches = [{"x": random(5, 5, 4) + number, "mask": np.tri(5, dtype=np.float32).T} for number in range(items)]
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in ("x", "mask")}
    rows = np.arange(5 * items) if labels else None
    data = Dataset(joined, rows, items=items if items > 1 else 0)
    network = Reader().eval()
    form = batch_form(network, data)
    assert (form.alone, dict(form.axes.inputs)) == (False, {"x": 1, "mask": 1})
    (together,) = outputs(network, form.apply(data), "net", form.axes.outputs)
    expected = [network(*map(torch.from_numpy, batch.values())).detach().numpy() for batch in batches]
    np.testing.assert_allclose(together, np.concatenate(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("data", "samples"),
    [(Dataset({"x": ROWS}), 6), (Dataset({"x": ROWS.reshape(-1)}, items=6), 6), (Dataset({"x": ROWS[0]}), 1)],
    ids=["samples", "a list of samples", "one sample"],
)
def test_calibration_data_may_have_another_form_than_evaluation_data(data: Dataset, samples: int) -> None:
    model, known = nn.Sequential(nn.Linear(5, 2)), Dataset({"x": ROWS})
    read = batch_form(model, known).apply_like(data, known, model)
    assert read.samples == samples
    np.testing.assert_array_equal(read.inputs["x"], ROWS[:samples])
