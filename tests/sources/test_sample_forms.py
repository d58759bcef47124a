"""The axis that counts samples is found by the sizes of all arrays, and by the shapes that the model declares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import Axis
from pytest_mnnquant.mnnfile.model import ModelInput
from pytest_mnnquant.sources.sample_forms import fit_to_model, samples_first

FRAMES = np.arange(30.0).reshape(6, 5)
LABELS = np.arange(6)


def layered(samples: int = 6) -> np.ndarray[Any, Any]:
    """States of two layers: (layers, samples, features)."""
    return np.arange(2 * samples * 4.0).reshape(2, samples, 4)


@pytest.mark.parametrize(
    ("arrays", "axes"),
    [
        ({"x": FRAMES, "labels": LABELS}, {}),
        ({"x": FRAMES, "h": layered()}, {"h": 1}),
        ({"x": FRAMES, "h": layered(), "labels": LABELS}, {"h": 1}),
        ({"x": np.zeros((9, 6, 5)), "labels": LABELS}, {"x": 1}),
        ({"x": FRAMES, "rate": np.array(16000)}, {"rate": None}),
        # Nothing shows which is right: these are refused later, by the model or as different numbers of samples.
        ({"x": FRAMES, "labels": LABELS[:5]}, {}),
        ({"x": FRAMES, "h": np.zeros((2, 7, 4))}, {}),
        ({"x": np.zeros((6, 2, 4)), "h": np.zeros((2, 6, 4))}, {}),
    ],
)
def test_samples_come_first(arrays: dict[str, Any], axes: dict[str, Axis]) -> None:
    [moved], found = samples_first([arrays], "labels")
    assert found == axes
    for name, axis in axes.items():
        expected = np.repeat(arrays[name], 6) if axis is None else np.moveaxis(arrays[name], axis, 0)
        np.testing.assert_array_equal(moved[name], expected)
    assert all(moved[name] is arrays[name] for name in arrays.keys() - axes.keys())


def test_a_label_without_axes_makes_a_single_sample() -> None:
    [moved], _ = samples_first([{"x": FRAMES[0], "labels": np.array(3)}], "labels")
    assert (moved["x"].shape, moved["labels"].tolist()) == ((1, 5), [3])


@pytest.mark.parametrize("sizes", [(6, 2), (2, 6), (2, 6, 1)])
def test_all_batches_show_the_axis_that_counts_samples(sizes: tuple[int, ...]) -> None:
    """A batch of two has as many samples as the states have layers."""
    moved, found = samples_first([{"x": FRAMES[:size], "h": layered(size)} for size in sizes], "labels")
    assert found == {"h": 1}
    for batch, size in zip(moved, sizes, strict=True):
        np.testing.assert_array_equal(batch["h"], layered(size).swapaxes(0, 1))


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([(8, 8, 4), (8, 3, 4)], {"x": 1}),
        ([(8, 3, 4), (8, 8, 4)], {"x": 1}),
        ([(8, 8, 4), (3, 8, 4)], {}),
        # Nothing decides: samples are first.
        ([(8, 8, 4), (8, 8, 4)], {}),
    ],
)
def test_a_batch_as_large_as_the_time_is_read_as_the_others(
    shapes: list[tuple[int, ...]], axes: dict[str, Axis]
) -> None:
    counts = [3 if 3 in shape else 8 for shape in shapes]
    batches = [{"x": np.zeros(shape), "labels": np.arange(n)} for shape, n in zip(shapes, counts, strict=True)]
    moved, found = samples_first(batches, "labels")
    assert found == axes
    assert [len(batch["x"]) for batch in moved] == counts


def inputs(**shapes: tuple[int, ...]) -> list[ModelInput]:
    return [ModelInput(name, shape, "float", "NCHW") for name, shape in shapes.items()]


@pytest.mark.parametrize(
    ("shape", "model", "fitting", "axis"),
    [
        ((7, 3, 8, 8), (1, 3, 8, 8), (7, 3, 8, 8), 0),
        ((7, 3, 8, 8), (-1, 3, -1, -1), (7, 3, 8, 8), 0),
        # One picture, as it is and in a list of one; several, each as the model takes it.
        ((3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8), 0),
        ((7, 1, 3, 8, 8), (1, 3, 8, 8), (7, 3, 8, 8), 0),
        ((7, 2, 64), (2, -1, 64), (7, 2, 64), 1),
        ((7, 2, 1, 64), (2, 1, 64), (7, 2, 1, 64), None),
        ((7,), (), (7,), None),
    ],
)
def test_samples_are_fed_as_the_model_declares(
    shape: tuple[int, ...], model: tuple[int, ...], fitting: tuple[int, ...], axis: Axis
) -> None:
    data = fit_to_model(Dataset({"x": np.zeros(shape)}), inputs(x=model))
    assert data is not None
    assert (data.inputs["x"].shape, data.axes.get("x", 0)) == (fitting, axis)
    assert data.batch(1)["x"].ndim == len(model)


def test_a_whole_input_may_be_longer_than_one_step() -> None:
    """MNN's file has 1 for the length of a sequence that may be any."""
    data = Dataset({"x": np.zeros((7, 20, 5))}, axes={"x": None})
    fitting = fit_to_model(data, inputs(x=(1, 5)))
    assert fitting is not None
    assert [batch["x"].shape for batch in fitting.batches(4)] == [(20, 5)] * 7
    assert fit_to_model(data, inputs(x=(1, 6))) is None


@pytest.mark.parametrize(
    ("shape", "model"), [((7, 8, 8, 3), (1, 3, 8, 8)), ((7, 3, 9, 8), (1, 3, 8, 8)), ((7, 5), (1, 4)), ((4,), (2, 4))]
)
def test_other_shapes_do_not_fit(shape: tuple[int, ...], model: tuple[int, ...]) -> None:
    data = Dataset({"x": np.zeros(shape)}, np.zeros(len(np.zeros(shape)), int))
    assert fit_to_model(data, inputs(x=model)) is None
