"""`diff` compares everything: two files that compute different things are never called equal."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from pytest_mnnquant.cli.inspect import difference, difference_text
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.convert import convert
from tests.conftest import TIMEOUT


def changed(model: Model, folder: Path, position: int, content: bytes) -> Model:
    """A copy of a model with other bytes at a position."""
    data = bytearray(model.path.read_bytes())
    assert data[position : position + len(content)] != content
    data[position : position + len(content)] = content
    path = folder / "changed.mnn"
    path.write_bytes(data)
    return read_model(path)


def rows(first: Model, second: Model) -> dict[str, dict[str, object]]:
    """The rows of changed operators, by name."""
    found = difference(first, second)
    assert not found["same"]
    assert "no difference" not in difference_text(found)
    return {row["name"]: row for row in found["operators"]}


def test_a_bias_that_differs_is_named(digits: Prepared, tmp_path: Path) -> None:
    layer = digits.model.layers[1]
    assert layer.parameters is not None
    start, _ = layer.parameters.span(2, 4)
    other = changed(digits.model, tmp_path, start, struct.pack("<f", 1.5))
    found = rows(digits.model, other)
    assert set(found) == {layer.name}
    assert "1 of" in str(found[layer.name]["vectors"])


def test_a_stride_that_differs_is_named(digits: Prepared, tmp_path: Path) -> None:
    layer = digits.model.layers[0]
    assert layer.parameters is not None
    common = layer.parameters.table(0)
    assert common is not None
    position = next(common.field(slot) for slot in (2, 3) if common.field(slot))
    found = rows(digits.model, changed(digits.model, tmp_path, position, struct.pack("<i", 1)))
    assert {"kernelX", "kernelY"} & set(found[layer.name])


def test_other_tensor_scales_are_named(digits_int8: Variant, tmp_path: Path) -> None:
    scale = next(iter(digits_int8.model.tensor_quants.values())).scale
    data = digits_int8.model.path.read_bytes()
    other = changed(digits_int8.model, tmp_path, data.index(struct.pack("<f", scale)), struct.pack("<f", scale * 2))
    found = difference(digits_int8.model, other)
    assert not found["same"]
    assert found["tensors"] or found["layers"] or found["other_bytes"]


def test_any_other_byte_is_a_difference(digits: Prepared, tmp_path: Path) -> None:
    data, uuid = digits.model.path.read_bytes(), digits.model.uuid.encode()
    beyond = len(data) - 1
    assert not data.endswith(uuid)
    assert not difference(digits.model, changed(digits.model, tmp_path, beyond, bytes([data[beyond] ^ 1])))["same"]


NODES: dict[str, Callable[[float], list[onnx.NodeProto]]] = {
    "PRelu": lambda value: [
        onnx.helper.make_node("Constant", [], ["slope"], value=tensor([[[value]], [[0.5]]])),
        onnx.helper.make_node("PRelu", ["x", "slope"], ["y"]),
    ],
    "Add": lambda value: [
        onnx.helper.make_node("Constant", [], ["c"], value=tensor(np.full((1, 2, 8, 8), value))),
        onnx.helper.make_node("Add", ["x", "c"], ["y"]),
    ],
    "LayerNormalization": lambda value: [
        onnx.helper.make_node("Constant", [], ["c"], value=tensor(np.full(8, value))),
        onnx.helper.make_node("LayerNormalization", ["x", "c"], ["y"], axis=-1),
    ],
    "Clip": lambda value: [
        onnx.helper.make_node("Constant", [], ["low"], value=tensor(0.0)),
        onnx.helper.make_node("Constant", [], ["high"], value=tensor(value)),
        onnx.helper.make_node("Clip", ["x", "low", "high"], ["y"]),
    ],
    "Transpose": lambda value: [onnx.helper.make_node("Transpose", ["x"], ["y"], perm=[0, 1, 2, 3][:: int(value)])],
    "LeakyRelu": lambda value: [onnx.helper.make_node("LeakyRelu", ["x"], ["y"], alpha=value)],
}


def tensor(values: object) -> onnx.TensorProto:
    """A float32 constant."""
    return onnx.numpy_helper.from_array(np.asarray(values, np.float32))


def model(folder: Path, nodes: list[onnx.NodeProto]) -> Model:
    """A model of these operators, converted by MNN."""
    info = [onnx.helper.make_tensor_value_info(name, 1, None if name == "y" else [1, 2, 8, 8]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "net", info[:1], info[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir()
    (folder / "net.onnx").write_bytes(made.SerializeToString())
    return convert(folder / "net.onnx", folder / "net.mnn", timeout=TIMEOUT)


@pytest.mark.parametrize("kind", NODES)
def test_values_that_decide_are_compared(kind: str, tmp_path: Path) -> None:
    first, same, second = (
        model(tmp_path / name, NODES[kind](value)) for name, value in (("a", 1.0), ("b", 1.0), ("c", -1.0))
    )
    assert difference(first, same)["same"]
    found = difference(first, second)
    assert not found["same"]
    assert not found["other_bytes"], "an operator is named"


def test_kinds_of_operators_are_compared(tmp_path: Path) -> None:
    first, second = (
        model(tmp_path / name, [onnx.helper.make_node(name, ["x"], ["y"])]) for name in ("Sigmoid", "Tanh")
    )
    assert any({"op", "opType"} & set(row) for row in rows(first, second).values())
