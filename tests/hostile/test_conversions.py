"""`pytest-mnnquant convert` with damaged models: a verified file, or a reason. benchmarks/fuzz_convert.py runs more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from pytest_mnnquant.cli.main import main
from pytest_mnnquant.mnnfile.model import read_model
from tests.hostile.cases import require_line, seeds
from tests.hostile.conversions import Source, answer, sources


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, ...]:
    """The models that are damaged."""
    return sources(tmp_path_factory.mktemp("models") / "healthy")


def test_a_damaged_model_is_converted_and_verified_or_refused(healthy: tuple[Source, ...], tmp_path: Path) -> None:
    answers = {number: answer(number, healthy, tmp_path / "case", timeout=3.0) for number in seeds(240)}
    assert not {number: fault for number, (_, fault) in answers.items() if fault}
    kinds = {kind for kind, _ in answers.values()}
    assert {"ONNX: converted", "ONNX: refused", "MNN: converted", "MNN: refused"} <= kinds


def test_weights_that_can_not_be_decoded_are_refused_without_a_request(
    healthy: tuple[Source, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MNN copies a layer whose number of channels does not divide its weights, and reports success."""
    source = next(source for source in healthy if source.name == "w8.mnn")
    path, output = tmp_path / "net.mnn", tmp_path / "new.mnn"
    path.write_bytes(source.content)
    layer = next(op for op in read_model(path).layers if op.shape[:2] == (64, 32))
    assert layer.parameters is not None
    common = layer.parameters.table(0)
    assert common is not None
    start = common.field(10)
    path.write_bytes(source.content[:start] + (2330).to_bytes(4, "little") + source.content[start + 4 :])
    assert main(["convert", "-f", "MNN", "--modelFile", str(path), "--MNNModel", str(output)]) == 1
    assert not output.exists()
    error = capsys.readouterr().err.strip()
    require_line(error, "net.mnn")
    assert "MNQ403" in error


@pytest.mark.parametrize("flags", [(), ("--fp16",)])
def test_weights_that_are_not_finite_are_refused(
    healthy: tuple[Source, ...], flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load_model_from_string(healthy[0].content)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.w")
    values = onnx.numpy_helper.to_array(weights).copy()
    values[1, 2] = np.nan
    weights.CopyFrom(onnx.numpy_helper.from_array(values, "fc.w"))
    path, output = tmp_path / "net.onnx", tmp_path / "net.mnn"
    path.write_bytes(model.SerializeToString())
    assert main(["convert", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(output), *flags]) == 1
    assert not output.exists()
    require_line(capsys.readouterr().err.strip(), "net.onnx")
