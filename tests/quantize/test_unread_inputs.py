"""Inputs that no operator reads need no data; all others do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.mnnfile.model import Model, ModelInput
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.quantize.unread_inputs import read_data, unread_inputs
from pytest_mnnquant.sources.spec import DataError
from tests.synthetic_evidence import layer, model

CHOICES = Choices(Path())
X = np.ones((5, 8), np.float32)


def net(*outputs: str) -> Model:
    """A layer that reads `x`, and two more inputs that nothing reads."""
    inputs = [
        dataclasses.replace(layer(name, kind="Input", outputs=(tensor,)), output_names=(name,), inputs=(), weights=())
        for tensor, name in enumerate(("x", "spare", "flags"))
    ]
    reader = dataclasses.replace(layer("reader", outputs=(3,)), inputs=(0,))
    specs = (
        ModelInput("x", (-1, 8), "float", "NCHW"),
        ModelInput("spare", (-1, 4, -1), "float", "NCHW"),
        ModelInput("flags", (1, 2), "int32", "NCHW"),
    )
    return dataclasses.replace(model([*inputs, reader]), inputs=specs, output_names=("y", *outputs))


def test_an_input_is_unread_unless_an_operator_or_an_output_takes_it() -> None:
    assert [item.name for item in unread_inputs(net())] == ["spare", "flags"]
    assert [item.name for item in unread_inputs(net("flags"))] == ["spare"]


def test_missing_data_of_unread_inputs_are_zeros_in_the_order_of_the_inputs() -> None:
    data = read_data({"x": X}, "data", net(), CHOICES)
    assert data is not None
    assert [(name, array.shape, str(array.dtype.kind), bool(array.any())) for name, array in data.inputs.items()] == [
        ("x", (5, 8), "f", True),
        ("spare", (5, 4, 1), "f", False),
        ("flags", (5, 2), "i", False),
    ]


def test_given_data_of_unread_inputs_are_kept() -> None:
    given = {"x": X, "spare": np.ones((5, 4, 3), np.float32), "flags": np.ones((5, 2), np.int64)}
    data = read_data(given, "data", net(), CHOICES)
    assert data is not None
    assert all(array.all() for array in data.inputs.values())


def test_an_input_that_is_read_needs_data_and_the_first_refusal_is_shown() -> None:
    with pytest.raises(DataError, match="'x'"):
        read_data({"flags": np.ones((5, 2))}, "data", net(), CHOICES)
    assert read_data(None, "data", net(), CHOICES) is None
