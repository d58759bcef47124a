"""`pytest-mnnquant convert` with damaged models: a verified file, or a reason. benchmarks/fuzz_convert.py runs more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from pytest_mnnquant.cli.main import main
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
