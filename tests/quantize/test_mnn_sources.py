"""`.mnn` files as sources: of other versions of MNN, with weights in another file, quantized."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.metrics.agreement import is_same
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.structure import differences
from pytest_mnnquant.quantize.failed_conversion import explain_failure
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.sources.spec import QuantizedSource, SourceError, parse_spec
from tests.conftest import TIMEOUT, quietly

OLD = Path(__file__).parent / "data" / "two_products@3.0.0.mnn"
Convert = Callable[..., Path]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copy(OLD, tmp_path / "old.mnn"))


@pytest.fixture
def normalized(tmp_path: Path) -> Convert:
    """A network with a LayerNorm, converted with flags."""
    onnx = pytest.importorskip("onnx")
    held = {"w": np.eye(8, dtype=np.float32), "g": np.ones(8, np.float32), "b": np.zeros(8, np.float32)}
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
        onnx.helper.make_node("LayerNormalization", ["h", "g", "b"], ["y"], name="norm"),
    ]
    places = [onnx.helper.make_tensor_value_info(name, 1, ["n", 8]) for name in ("x", "y")]
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = onnx.helper.make_graph(nodes, "net", places[:1], places[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")

    def run(*flags: str) -> Path:
        return convert(tmp_path / "net.onnx", tmp_path / "net.mnn", flags, timeout=TIMEOUT).path

    return run


def prepared(path: Path, store: Store, *, is_given: bool = False) -> Prepared:
    data = {"x": np.random.default_rng(0).standard_normal((5, 3, 8)).astype(np.float32)}
    choices = Choices(path.parent, evaluation=data, timeout=TIMEOUT, is_given=is_given)
    return prepare(parse_spec(path.name, path.parent), choices, store, quietly)


def test_a_file_of_another_version_is_converted_again_and_proven(old: Path, store: Store) -> None:
    source = prepared(old, store)
    assert source.proof is not None
    assert is_same(source.proof["y"])
    assert source.model.path != old
    quantized = convert(source.model.path, old.with_name("w8.mnn"), ["--weightQuantBits", "8"], timeout=TIMEOUT)
    assert not differences(source.model, quantized, match_layers(source.model, quantized))


def test_a_finished_file_is_compared_with_the_source_as_it_is(old: Path, store: Store) -> None:
    assert prepared(old, store, is_given=True).model.path == old


def test_weights_that_the_converter_loses_are_named(normalized: Convert, store: Store) -> None:
    with pytest.raises(SourceError, match="LayerNorm") as error:
        prepared(normalized("--saveExternalData"), store)
    assert error.value.operator == "y"


def test_quantized_files_with_weights_in_another_file_are_refused(normalized: Convert, store: Store) -> None:
    with pytest.raises(QuantizedSource, match="1 of 1 layers"):
        prepared(normalized("--saveExternalData", "--weightQuantBits", "8"), store)


def test_a_crash_on_static_shapes_has_a_fix(normalized: Convert) -> None:
    crash = NativeFailure(FailureKind.CRASHED, "converting net.mnn: MNN crashed with SIGSEGV")
    assert "--saveStaticModel" in explain_failure(crash, normalized("--saveStaticModel")).fix
    assert explain_failure(crash, normalized()) is crash
