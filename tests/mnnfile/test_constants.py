"""Constants that a matrix product, a convolution or a look-up reads are weights; those that are added are not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_mnnquant.mnnfile.constants import operand_constants
from pytest_mnnquant.runtime.convert import convert
from tests.conftest import TIMEOUT
from tests.synthetic_evidence import layer, model

pytestmark = [pytest.mark.mnn, pytest.mark.torch]
TABLE = np.random.default_rng(0).standard_normal((12, 16)).astype(np.float32)
Nodes = list[onnx.NodeProto]


def node(kind: str, *inputs: str, to: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [to], **attributes)


#: The input "x" is [1, 12, 16], "table" is [12, 16], and "wide" [16, 12]; "rows" are indices. The output is "y".
OPERANDS: dict[str, Nodes] = {
    "added": [node("Add", "x", "table")],
    "multiplied": [node("Mul", "x", "table")],
    "compared": [node("Greater", "x", "table", to="c"), node("Where", "c", "x", "table")],
    "joined": [node("Concat", "x", "page", axis=1)],
    "added to what a product reads": [node("Add", "x", "table", to="s"), node("MatMul", "s", "wide")],
    "reshaped and added": [node("Transpose", "wide", to="t", perm=[1, 0]), node("Sub", "x", "t")],
}
WEIGHTS: dict[str, Nodes] = {
    "looked up": [node("Gather", "table", "rows", axis=0)],
    "looked up and added": [node("Gather", "table", "rows", to="g", axis=0), node("Add", "x", "g")],
}


def converted(nodes: Nodes, folder: Path) -> frozenset[tuple[str, str]]:
    rows = helper.make_tensor_value_info("rows", TensorProto.INT32, [1, 12])
    data = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12, 16])
    constants = {"table": TABLE, "wide": TABLE.T.copy(), "page": TABLE[None]}
    used = {name for item in nodes for name in item.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [item for item in (data, rows) if item.name in used],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    onnx.save(model, folder / "net.onnx")
    return operand_constants(convert(folder / "net.onnx", folder / "net.mnn", timeout=TIMEOUT))


@pytest.mark.parametrize("name", OPERANDS)
def test_constants_that_are_added_compared_or_joined_are_operands(tmp_path: Path, name: str) -> None:
    assert len(converted(OPERANDS[name], tmp_path)) == 1


@pytest.mark.parametrize("name", WEIGHTS)
def test_tables_that_are_looked_up_are_weights(tmp_path: Path, name: str) -> None:
    assert converted(WEIGHTS[name], tmp_path) == frozenset()


PRODUCTS: dict[str, Nodes] = {
    "product": [node("MatMul", "x", "wide")],
    "transposed first": [node("Transpose", "table", to="t", perm=[1, 0]), node("MatMul", "x", "t")],
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_a_product_reads_is_a_weight(tmp_path: Path, name: str) -> None:
    assert converted(PRODUCTS[name], tmp_path) == frozenset()


def test_queries_that_a_layer_takes_as_data_are_operands_unless_they_are_its_weights() -> None:
    queries = layer("queries", kind="Const", outputs=(1,))
    reader = dataclasses.replace(layer("reader", outputs=(2,)), inputs=(1,))
    shape = dataclasses.replace(layer("shape", kind="Shape", outputs=(3,)), inputs=(1,), weights=())
    rows = dataclasses.replace(layer("rows", kind="GatherV2", outputs=(4,)), inputs=(3,), weights=())
    assert operand_constants(model([queries, reader, shape, rows])) == {("", "queries")}
    given = dataclasses.replace(layer("reader", outputs=(2,)), inputs=(0, 1), weights=())
    assert operand_constants(model([queries, given])) == frozenset()
