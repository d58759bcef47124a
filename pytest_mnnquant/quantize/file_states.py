"""Runs a float model through sequences, with its outputs fed back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.measurements.sequences import Sequences, fed_back
from pytest_mnnquant.mnnfile.model import Model, ModelInput
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.sample_forms import fit_to_model
from pytest_mnnquant.sources.spec import DataError


def with_states(model: Model, data: Dataset, states: Mapping[str, str], timeout: float) -> Dataset:
    """The steps of all sequences, each with the states that the step before leaves; they start from 0 unless given.

    Raises `DataError` if the data do not fit or an output can't be fed back, and `NativeFailure`.
    """
    specs = {spec.name: spec for spec in model.inputs}
    missing = {name: _zeros(specs[name], data) for name in states if name not in data.inputs}
    inputs = {**data.inputs, **missing}
    data = dataclasses.replace(data, inputs={name: inputs[name] for name in specs})
    fitting = fit_to_model(data, model.inputs)
    if fitting is None:
        shapes = ", ".join(f"{name} {list(array.shape[1:])}" for name, array in data.inputs.items())
        taken = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in model.inputs)
        raise DataError(
            f"{data.origin}: the arrays of a step ({shapes}) do not fit the model ({taken})",
            "give sequences: the first axis of each array of a sequence counts steps",
        )
    options = RunOptions(timeout, batched=False, axes=SampleAxes(fitting.axes))
    first = run(model, fitting.head(1), options).outputs
    for name, output in states.items():
        if first[output].size != fitting.inputs[name][:1].size:
            shapes = f"{list(first[output].shape[1:])}, input {name!r} takes {list(fitting.inputs[name].shape[1:])}"
            raise DataError(f"{data.origin}: --mnn-state {name}={output}: output {output!r} has shape {shapes}")
    rolled = run(model, fitting.inputs, dataclasses.replace(options, sequences=Sequences(states, fitting.lengths)))
    rows = {
        name: fed_back(rolled.outputs[output], fitting.inputs[name], fitting.lengths) for name, output in states.items()
    }
    return dataclasses.replace(fitting, inputs={**fitting.inputs, **rows})


def first_states(states: Mapping[str, str], names: tuple[str, ...], *sets: Dataset | None) -> list[Dataset | None]:
    """The data sets with 0 as the first state where it is missing; its size is taken from the other set.

    `names` are the model's inputs in order. Raises `DataError` if no set has it: PyTorch models do not declare sizes.
    """
    known = [data for data in sets if data is not None]
    shapes: dict[str, tuple[int, ...]] = {}
    for name in states:
        shape = next((data.inputs[name].shape[1:] for data in known if name in data.inputs), None)
        if shape is None:
            raise DataError(
                f"{known[0].origin}: no array {name!r}: the size of this state is unknown",
                f"give the first state of each sequence as {name!r}, for example zeros of shape [sequences, ...]",
            )
        shapes[name] = shape
    return [data and _with_zeros(data, shapes, names) for data in sets]


def _with_zeros(data: Dataset, shapes: Mapping[str, tuple[int, ...]], names: tuple[str, ...]) -> Dataset:
    zeros = {name: np.zeros((data.samples, *shape), np.float32) for name, shape in shapes.items()}
    inputs = {**zeros, **data.inputs}
    return dataclasses.replace(data, inputs={name: inputs[name] for name in names})


def _zeros(spec: ModelInput, data: Dataset) -> npt.NDArray[Any]:
    """The first state of each step: 0. Raises `DataError` if its size is unknown."""
    shape = list(spec.shape)
    dynamic = [axis for axis, size in enumerate(shape) if size <= 0]
    if len(dynamic) > 1:
        raise DataError(
            f"{data.origin}: the size of the state {spec.name!r} is unknown: the model takes {shape}",
            f"give its first value in the data, as {spec.name!r}",
        )
    for axis in dynamic:
        shape[axis] = 1
    return np.zeros((data.samples, *shape), np.float32)
