"""Data for the inputs that no operator of a file reads, which users leave out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model, ModelInput
from pytest_mnnquant.quantize.prepared import Choices, data_from
from pytest_mnnquant.sources.spec import DataError


def read_data(given: Any, origin: str, model: Model, choices: Choices) -> Dataset | None:
    """The data of a specification or of arrays for a file's inputs; None without any. Raises `DataError`.

    An input that no operator reads may be missing: it gets zeros.
    """
    names = tuple(item.name for item in model.inputs)
    try:
        return data_from(given, origin, names, choices)
    except DataError:
        unread = {item.name: item for item in unread_inputs(model)}
        needed = tuple(name for name in names if name not in unread)
        if not needed or len(needed) == len(names):
            raise
        data = _data_or_none(given, origin, needed, choices)
        if data is None:
            raise
    zeros = {name: _zeros(item, data.samples) for name, item in unread.items()}
    return dataclasses.replace(data, inputs={name: {**data.inputs, **zeros}[name] for name in names})


def unread_inputs(model: Model) -> tuple[ModelInput, ...]:
    """The inputs that no operator and no output of the main graph reads, and whose samples have a first axis."""
    ops = [op for op in model.ops if not op.subgraph]
    read = {tensor for op in ops for tensor in op.inputs}
    makers = {name: tensor for op in ops for name, tensor in zip(op.output_names, op.outputs, strict=True)}
    return tuple(
        item
        for item in model.inputs
        if item.shape and makers.get(item.name, -1) not in {*read, -1} and item.name not in model.output_names
    )


def _data_or_none(given: Any, origin: str, names: tuple[str, ...], choices: Choices) -> Dataset | None:
    try:
        return data_from(given, origin, names, choices)
    except DataError:
        return None


def _zeros(item: ModelInput, samples: int) -> np.ndarray[Any, Any]:
    kind = np.float32 if "float" in item.data_type else np.int64
    return np.zeros((samples, *(max(1, size) for size in item.shape[1:])), kind)
