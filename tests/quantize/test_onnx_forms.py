"""ONNX models in the forms that exporters and tools write: a proven float model, or one line that says why not."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import FunctionProto, NodeProto, helper, numpy_helper

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.quantize.conversion_proof import is_proven
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.sources.spec import QuantizedSource, parse_spec
from tests.conftest import TIMEOUT, quietly

RANDOM = np.random.default_rng(0)
FIRST, SECOND = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((16, 8), (8, 5)))
#: The last batch of four is not full.
X = RANDOM.standard_normal((7, 16)).astype(np.float32)
STANDARD = helper.make_opsetid("", 17)
Net = tuple[list[NodeProto], dict[str, np.ndarray]]


def write(
    path: Path, net: Net, shape: Sequence[Any] | None = ("n", 16), functions: Sequence[FunctionProto] = ()
) -> Path:
    """A network of `nodes` from x to y with constants; functions and operators may be of the domain `own`."""
    nodes, constants = net
    places = [helper.make_tensor_value_info("x", 1, shape), helper.make_tensor_value_info("y", 1, None)]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", places[:1], places[1:], held)
    domains = [STANDARD, *(helper.make_opsetid(name, 1) for name in ("own", "com.microsoft"))]
    model = helper.make_model(graph, opset_imports=domains, functions=list(functions))
    model.ir_version = 8
    onnx.save(model, path)
    return path


def two_layers(*between: NodeProto) -> Net:
    """Two matrix products, and operators from h to g between them."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], name="fc1"),
        *(between or [helper.make_node("Relu", ["h"], ["g"])]),
        helper.make_node("MatMul", ["g", "second"], ["y"], name="fc2"),
    ]
    return nodes, {"first": FIRST, "second": SECOND}


def prepared(path: Path, store: Store, x: np.ndarray = X) -> Prepared:
    choices = Choices(path.parent, evaluation={"x": x}, timeout=TIMEOUT)
    return prepare(parse_spec(path.name, path.parent), choices, store, quietly)


def proven(path: Path, store: Store) -> Prepared:
    source = prepared(path, store)
    assert source.proof is not None, source.unproven
    assert is_proven(source.proof)
    return source


def test_a_fixed_batch_is_filled(tmp_path: Path, store: Store) -> None:
    """Its size is a constant of a Reshape, so that the model fails for others."""
    net = two_layers(
        helper.make_node("Reshape", ["h", "split"], ["s"]),
        helper.make_node("Softmax", ["s"], ["t"], axis=-1),
        helper.make_node("Reshape", ["t", "joined"], ["g"]),
    )
    net[1].update(split=np.array([4, 2, 4]), joined=np.array([4, 8]))
    source = proven(write(tmp_path / "net.onnx", net, (4, 16)), store)
    assert source.proof is not None
    assert source.proof["y"].samples == len(X)
    assert source.sample_run is not None
    assert source.sample_run.outputs["y"].shape == (len(X), 5)


def test_an_input_without_a_declared_shape_takes_any(tmp_path: Path, store: Store) -> None:
    proven(write(tmp_path / "net.onnx", two_layers(), None), store)


def test_an_output_that_is_an_input_is_not_judged(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path / "net.onnx", two_layers())
    model = onnx.load(path)
    model.graph.output.append(model.graph.input[0])
    onnx.save(model, path)
    source = proven(path, store)
    assert source.proof is not None
    assert set(source.proof) == {"y"}


def integers(net: Net, per_column: bool) -> Net:
    """The network with the first weights as integers, and one scale per row of its matrix or one for all."""
    nodes, constants = net
    largest = np.abs(FIRST).max(1) if per_column else np.abs(FIRST).max()
    scale = np.asarray(largest / 127, np.float32)
    codes = np.round(FIRST / (scale[:, None] if per_column else scale)).astype(np.int8)
    node = helper.make_node("DequantizeLinear", ["codes", "scale"], ["first"], axis=0)
    held = {name: value for name, value in constants.items() if name != "first"}
    return [node, *nodes], {**held, "codes": codes, "scale": scale}


def test_weights_as_integers_are_judged_by_what_mnn_makes_of_them(tmp_path: Path, store: Store) -> None:
    proven(write(tmp_path / "one.onnx", integers(two_layers(), per_column=False)), store)
    with pytest.raises(QuantizedSource, match="1 DequantizeLinear"):
        prepared(write(tmp_path / "several.onnx", integers(two_layers(), per_column=True)), store)


def test_operators_of_onnx_runtime_are_named(tmp_path: Path, store: Store) -> None:
    fused = helper.make_node("FastGelu", ["h"], ["g"], name="act", domain="com.microsoft")
    with pytest.raises(NativeFailure, match=r"com\.microsoft\.FastGelu") as error:
        prepared(write(tmp_path / "net.onnx", two_layers(fused)), store)
    assert error.value.operator == "act"


def test_the_fix_for_functions_inlines_them(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [helper.make_node("Sigmoid", ["a"], ["b"]), helper.make_node("Mul", ["a", "b"], ["c"])]
    swish = helper.make_function("own", "Swish", ["a"], ["c"], steps, [STANDARD])
    call = helper.make_node("Swish", ["h"], ["g"], name="block", domain="own")
    path = write(tmp_path / "net.onnx", two_layers(call), functions=[swish])
    with pytest.raises(NativeFailure, match=r"own\.Swish") as error:
        prepared(path, store)
    assert error.value.operator == "block"
    python, *arguments = shlex.split(error.value.fix.splitlines()[1])
    assert python == "python"
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, *arguments], check=True)
    assert [node.op_type for node in onnx.load(tmp_path / "net.inlined.onnx").graph.node] == [
        "MatMul",
        "Sigmoid",
        "Mul",
        "MatMul",
    ]
