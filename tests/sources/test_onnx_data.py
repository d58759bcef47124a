"""ONNX files whose weights lie in another file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from pytest_mnnquant.sources.onnx_data import external_files
from pytest_mnnquant.sources.onnx_file import require_float
from pytest_mnnquant.sources.spec import QuantizedSource, SourceError


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A convolution of 64 weights, in a file beside the model."""
    weights = onnx.numpy_helper.from_array(np.arange(64, dtype=np.float32).reshape(64, 1, 1, 1), "w")
    shapes = [onnx.helper.make_tensor_value_info(name, 1, ["n", size, 4, 4]) for name, size in (("x", 1), ("y", 64))]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Conv", ["x", "w"], ["y"])], "net", *map(list, zip(shapes)))
    graph.initializer.append(weights)
    path = tmp_path / "net.onnx"
    options = {"all_tensors_to_one_file": True, "location": "net.data", "size_threshold": 0}
    onnx.save_model(onnx.helper.make_model(graph), path, save_as_external_data=True, **options)
    return path


def test_the_files_of_a_complete_model_are_listed(external: Path) -> None:
    assert external_files(external) == (external.with_name("net.data"),)


def test_a_missing_file_is_named(external: Path) -> None:
    external.with_name("net.data").unlink()
    with pytest.raises(SourceError, match=r"net\.data .* 256 bytes"):
        external_files(external)


def test_a_cut_file_is_named(external: Path) -> None:
    external.with_name("net.data").write_bytes(bytes(100))
    with pytest.raises(SourceError, match=r"256 bytes.* 100 bytes"):
        external_files(external)


def test_what_is_no_onnx_file_is_told_by_others(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(range(1, 200)))
    assert external_files(path) == ()


def test_tensors_in_loops_are_looked_at(external: Path) -> None:
    inner = onnx.load(external, load_external_data=False).graph
    loop = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    constant = onnx.helper.make_node("Constant", [], ["c"], value=inner.initializer[0])
    for nodes in ([loop], [constant]):
        graph = onnx.helper.make_graph(nodes, "outer", [], [])
        path = external.with_name("outer.onnx")
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
        external_files(path)
        stored = external.with_name("net.data").read_bytes()
        external.with_name("net.data").unlink()
        with pytest.raises(SourceError, match=r"net\.data"):
            external_files(path)
        external.with_name("net.data").write_bytes(stored)


def test_tensors_in_functions_lists_and_sparse_tensors_are_looked_at(external: Path) -> None:
    tensor = onnx.load(external, load_external_data=False).graph.initializer[0]
    indices = onnx.numpy_helper.from_array(np.zeros(1, np.int64))
    sparse = onnx.SparseTensorProto(values=tensor, indices=indices, dims=[64])
    listed = onnx.helper.make_node("Made", [], ["c"], "own", domain="own")
    listed.attribute.append(onnx.helper.make_attribute("many", [tensor]))
    with_list = onnx.helper.make_model(onnx.helper.make_graph([listed], "net", [], []))
    with_sparse = onnx.helper.make_model(onnx.helper.make_graph([], "net", [], []))
    with_sparse.graph.sparse_initializer.append(sparse)
    imports = [onnx.helper.make_opsetid("", 18)]
    function = onnx.helper.make_function("own", "Made", [], ["c"], [listed], imports)
    with_function = onnx.helper.make_model(onnx.helper.make_graph([], "net", [], []), functions=[function])
    for model in (with_list, with_sparse, with_function):
        path = external.with_name("other.onnx")
        path.write_bytes(model.SerializeToString())
        assert external_files(path) == (external.with_name("net.data"),)


@pytest.mark.parametrize("location", ["../net.data", "/etc/passwd", "a/../../net.data", "..\\net.data", ""])
def test_an_external_file_outside_of_the_folder_is_refused(external: Path, location: str) -> None:
    model = onnx.load(external, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = location if entry.key == "location" else entry.value
    external.write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match=r"net\.onnx: names the external file"):
        external_files(external)


@pytest.mark.parametrize("size", ["x", "-4", "1e3", "9" * 5000, "0x10", "٣"])
def test_a_size_that_is_not_a_number_is_refused(external: Path, size: str) -> None:
    """It must not hide the other external files."""
    model = onnx.load(external, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = size if entry.key == "length" else entry.value
    external.write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match=r"net\.onnx: the length of the external tensor in 'net\.data' is"):
        external_files(external)


def graph_of(tmp_path: Path, *kinds: str, inside: str = "") -> Path:
    """A file with operators of these kinds in a row, and one in the branch of an If."""
    names = [f"t{number}" for number in range(len(kinds) + 1)]
    pairs = zip(kinds, names, names[1:], strict=False)
    nodes = [onnx.helper.make_node(kind, [first], [second]) for kind, first, second in pairs]
    if inside:
        branch = onnx.helper.make_graph([onnx.helper.make_node(inside, ["t0"], ["in"])], "branch", [], [])
        nodes.append(onnx.helper.make_node("If", ["t0"], ["out"], then_branch=branch))
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [], [])).SerializeToString())
    return path


def test_a_float_model_passes(external: Path, tmp_path: Path) -> None:
    require_float(external)
    require_float(graph_of(tmp_path, "Conv", "DequantizeLinear"))  # Weights alone are stored as integers.


@pytest.mark.parametrize(
    "kind", ["QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearAdd", "ConvInteger", "QGemm"]
)
def test_a_quantized_model_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(QuantizedSource, match=rf"net\.onnx is quantized already \(2 {kind}\)"):
        require_float(graph_of(tmp_path, "Conv", kind, kind))


def test_quantization_in_a_branch_is_seen(tmp_path: Path) -> None:
    with pytest.raises(QuantizedSource):
        require_float(graph_of(tmp_path, "Conv", inside="MatMulInteger"))


def test_what_is_no_onnx_file_is_not_refused_here(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(range(1, 200)))
    require_float(path)
