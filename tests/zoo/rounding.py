"""An ONNX model with its weights rounded in numpy: what a recipe costs, without MNN."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

Array = npt.NDArray[np.float32]
#: The axis of output channels in the weights of these operators.
_CHANNELS = {"Conv": 0, "MatMul": 1}


def rounded(path: Path, bits: int, symmetric: bool, chosen: Callable[[str], bool] = lambda _: True) -> Any:
    """The model with the weights of each output channel rounded to 2^bits steps; `chosen` of a layer's output name."""
    model = onnx.load(path)
    held = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            held[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        if node.op_type in _CHANNELS and node.input[1] in held and chosen(node.output[0]):
            tensor = held[node.input[1]]
            steps = _steps(numpy_helper.to_array(tensor), _CHANNELS[node.op_type], bits, symmetric)
            tensor.CopyFrom(numpy_helper.from_array(steps, tensor.name))
    return model


def _steps(weights: Array, axis: int, bits: int, symmetric: bool) -> Array:
    others = tuple(number for number in range(weights.ndim) if number != axis)
    high, low = weights.max(others, keepdims=True), weights.min(others, keepdims=True)
    if symmetric:
        high = np.abs(weights).max(others, keepdims=True)
        scale, low = high / (2 ** (bits - 1) - 1), np.zeros_like(high)
    else:
        scale = (high - low) / (2**bits - 1)
    scale = np.where(scale > 0, scale, 1)
    return np.asarray(np.round((weights - low) / scale) * scale + low, np.float32)


def output_of(model: Any, inputs: Array) -> Array:
    """The first output of an ONNX model with one input, by ONNX Runtime."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: inputs})[0])
