"""Names of states that a file does not have are a usage error, which names those that exist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.config.validate import validate_models
from pytest_mnnquant.sources.spec import DataError, parse_spec
from pytest_mnnquant.sources.state_names import require_known_names
from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`net.onnx`: a frame and a state in, an answer and a state out; a weight is declared as an input too."""
    kinds = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "h", "y", "h_out", "w")
    }
    nodes = [helper.make_node("Add", ["x", "h"], ["h_out"]), helper.make_node("Mul", ["h_out", "w"], ["y"])]
    weight = numpy_helper.from_array(np.ones((1, 4), np.float32), "w")
    inputs, outputs = ([kinds[name] for name in names] for names in (["x", "h", "w"], ["y", "h_out"]))
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, [weight])), tmp_path / "net.onnx")
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    (tmp_path / "damaged.mnn").write_bytes(b"no model")
    return tmp_path


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({"hidden": "h_out"}, ("'hidden'", "inputs: x, h;", "outputs: y, h_out")),
        ({"h": "state"}, ("'state'", "inputs: x, h;", "outputs: y, h_out")),
        ({"w": "h_out"}, ("'w'", "inputs: x, h;")),
        ({"x": "y", "h": "h_out"}, ("names all inputs",)),
    ],
)
def test_unknown_names_are_refused_before_a_run(states: dict[str, str], words: tuple[str, ...], folder: Path) -> None:
    settings = model_settings("net.onnx", "net", folder, {"state": states})
    with pytest.raises(DataError) as error:
        validate_models([settings])
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("source", ["net.onnx", "damaged.onnx", "damaged.mnn"])
def test_known_names_and_files_that_cannot_be_read_are_left_to_the_checks(source: str, folder: Path) -> None:
    require_known_names({"h": "h_out"}, parse_spec(source, folder))
    require_known_names({}, parse_spec(source, folder))


def test_the_names_of_a_mnn_file_are_known() -> None:
    path = ROOT / "tests" / "quantize" / "data" / "two_products@3.0.0.mnn"
    with pytest.raises(DataError, match="inputs: "):
        require_known_names({"no such input": "output"}, parse_spec(path.name, path.parent))
