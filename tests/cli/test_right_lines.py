"""Correct command lines pass, and give the model that MNN's converter gives, in every byte but the random uuid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Net, Result, raw_convert, without_uuid
from tests.golden_text import check_golden

ONNX, MNN = "-f ONNX --modelFile {net.onnx}", "-f MNN --modelFile {net.mnn}"
PARAMS = "--compressionParamsFile {net.params}"
LINES = [
    (f"{ONNX} --bizCode MNN", "a complete model, 4 layers (float32)"),
    (ONNX, "a complete model"),
    ("--framework=ONNX --modelFile={net.onnx} --weightQuantBits=8 --bizCode=biz", "w8: 4 of 4 layers, coverage 100.0%"),
    (f"{ONNX} --weightQuantBits 8 --authCode secret --targetVersion 3.6", "w8: 4 of 4"),
    (f"{ONNX} --weightQuantBits 2", "w2: 4 of 4"),
    (f"{ONNX} --weightQuantBits 5", "w5: 4 of 4"),
    (f"{ONNX} --weightQuantBits 4 --weightQuantBlock 32", "w4b32: 4 of 4"),
    (f"{ONNX} --weightQuantBits 8 --weightQuantBlock -1 --saveExternalData", "w8: 4 of 4"),
    (f"{ONNX} --weightQuantBits 4 --weightQuantAsymmetric=0", "w4-sym: 4 of 4"),
    (f"{ONNX} --weightQuantBits 4 --weightQuantAsymmetric=1 --hqq", "w4-hqq: 4 of 4"),
    (f"{ONNX} --weightQuantBits 8 --weightQuantScaleBit 16", "w8-scale16: 4 of 4"),
    (f"{ONNX} --weightQuantBits 8 --detectSparseSpeedUp", "w8: 4 of 4"),
    (f"{ONNX} --fp16", "fp16: 4 of 4"),
    (f"{ONNX} --fp16 --saveExternalData true --optimizePrefer 2", "fp16: 4 of 4"),
    (f"{ONNX} --weightQuantBits 8 --keepInputFormat=0 --optimizeLevel 2", "w8: 4 of 4"),
    (f"{ONNX} --weightQuantBits 8 --batch 3 --useGeluApproximation 0", "w8: 4 of 4"),
    (f"{ONNX} --saveStaticModel --fp16", "fp16: 4 of 4"),
    (f"{ONNX} {PARAMS}", "int8: 4 of 4"),
    (f"{MNN} {PARAMS} --alignDenormalizedValue 1", "int8: 4 of 4"),
    (f"{MNN} {PARAMS} --weightQuantBits 8", "int8+w8: 4 of 4"),
    (f"{MNN} {PARAMS} --fp16", "int8: 4 of 4"),
    (f"{MNN} --weightQuantBits 8 --optimizeLevel 0", "w8: 4 of 4"),
    (f"{MNN} --weightQuantBits 3 --transformerFuse --groupConvNative --forTraining", "w3: 4 of 4"),
]


@pytest.mark.parametrize(("line", "verdict"), LINES, ids=[str(number) for number in range(len(LINES))])
def test_the_model_is_mnns_own(net: Net, tool: Callable[..., Result], tmp_path: Path, line: str, verdict: str) -> None:
    arguments = line.format(net=net).split()
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
    result = tool("convert", *arguments, "--MNNModel", tmp_path / "ours/net.mnn")
    raw_convert(*arguments, "--MNNModel", tmp_path / "theirs/net.mnn", cwd=tmp_path)
    assert (result.status, result.out.count("\n")) == (0, 1), result.err
    assert verdict in result.out
    assert without_uuid(tmp_path / "ours/net.mnn") == without_uuid(tmp_path / "theirs/net.mnn")
    names = {path.name for path in (tmp_path / "theirs").iterdir()}
    assert {path.name for path in (tmp_path / "ours").iterdir()} == names
    for name in names - {"net.mnn"}:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_json_there_and_back(net: Net, tool: Callable[..., Result], tmp_path: Path) -> None:
    assert tool("convert", *MNN.format(net=net).split(), "--JsonFile", tmp_path / "net.json").status == 0
    result = tool("convert", "-f", "JSON", "--modelFile", tmp_path / "net.json", "--MNNModel", tmp_path / "back.mnn")
    assert (result.status, result.err) == (0, "")
    raw_convert("-f", "JSON", "--modelFile", tmp_path / "net.json", "--MNNModel", tmp_path / "raw.mnn", cwd=tmp_path)
    assert without_uuid(tmp_path / "back.mnn") == without_uuid(tmp_path / "raw.mnn")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("-f ONNX --OP", "Total: "),
        (f"{MNN} --info", "Model Inputs:"),
        ("--version", "3."),
        ("--help", "--mnn-skip-layer GLOB"),
    ],
)
def test_questions_are_answered(net: Net, tool: Callable[..., Result], line: str, answer: str) -> None:
    result = tool("convert", *line.format(net=net).split())
    assert result.status == 0
    assert answer in result.out


def test_a_block_that_fits_some_layers_is_told(
    net: Net, tool: Callable[..., Result], tmp_path: Path, without_folders: Callable[[str], str]
) -> None:
    line = f"{ONNX} --weightQuantBits 4 --weightQuantBlock 32".format(net=net)
    result = tool("convert", *line.split(), "--MNNModel", tmp_path / "net.mnn")
    assert result.status == 0
    assert "MNQ414" in result.err
    check_golden("convert/a-block-that-fits-some-layers", without_folders(result.err))


def test_relative_paths_are_the_callers(
    net: Net, tool: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.onnx").write_bytes(net.onnx.read_bytes())
    monkeypatch.chdir(tmp_path)
    line = "-f ONNX --modelFile in.onnx --MNNModel out.mnn --weightQuantBits 8"
    assert tool("convert", *line.split()).out.startswith("out.mnn: w8: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "out.mnn"]
