"""Command lines for which MNN exits 0 and prints Success are refused or caught, and the old output stays."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.params import Params, read_params, write_params
from tests.cli.conftest import Net, Result, by_hand
from tests.golden_text import check_golden
from tests.smallnets import Words, one_layer
from tests.workshop import Workshop

Refuse = Callable[..., str]


@pytest.fixture
def refuse(tool: Callable[..., Result], tmp_path: Path) -> Refuse:
    """Runs `convert` on a line that must fail; returns its reasons on one line, without repeated blanks."""
    output = tmp_path / "out" / "net.mnn"
    output.parent.mkdir()
    output.write_bytes(b"the old output")

    def run(*arguments: object) -> str:
        given = [str(argument) for argument in arguments]
        result = tool("convert", *given, *([] if "--MNNModel" in given else ["--MNNModel", output]))
        assert (result.status, result.out) == (1, "")
        assert output.read_bytes() == b"the old output"
        assert {path.name for path in output.parent.iterdir()} <= {"net.mnn", "wrong.repaired.bin"}
        return " ".join(result.err.split())

    return run


FLAGS = {
    # Section D of the failure catalogue, and what belongs to it.
    "unknown-flag": "--weightQuantBit 8",
    "unknown-params-flag": "--compressionParams {net.params}",
    "no-bits": "--weightQuantBits",
    "bits-are-a-word": "--weightQuantBits int8",
    "1-bit": "--weightQuantBits 1",
    "16-bits": "--weightQuantBits 16",
    "fp16-swallows-bits": "--fp16 --weightQuantBits 8",
    "hqq-without-bits": "--hqq",
    "hqq-and-symmetric": "--weightQuantBits 4 --hqq --weightQuantAsymmetric=0",
    "auto_quant.py": "--weightQuantBits 8 --hqq --weightQuantAsymmetric=0 --testdir x",
    "hqq-and-its-reverse": "--weightQuantBits 4 --hqq --weightQuantAsymmetric",
    "block-without-bits": "--weightQuantBlock 32",
    "block-of-8": "--weightQuantBits 4 --weightQuantBlock 8",
    "block-of-40": "--weightQuantBits 4 --weightQuantBlock 40",
    "block-fits-nothing": "--weightQuantBits 4 --weightQuantBlock 1040",
    "8-bit-scales": "--weightQuantBits 4 --weightQuantScaleBit 8",
    "scales-without-bits": "--weightQuantScaleBit 16",
    "testdir": "--testdir tests --thredhold 0.01",
    "benchmarkModel": "--benchmarkModel",
    "customOpLibs": "--customOpLibs a.so",
    "inputConfigFile": "--inputConfigFile {net.onnx}",
    "prototxt": "--prototxt {net.onnx}",
    "optimizeLevel-0": "--optimizeLevel 0",
    "splitBlockQuant": "--splitBlockQuant",
    "newer-flag": "--transformerFuseLnProj 1",
    "a-second-output": "--JsonFile x.json",
    "a-question-too": "--fp16 --info",
    "no-params-file": "--compressionParamsFile none.bin",
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_that_do_other_than_they_say(
    net: Net, refuse: Refuse, without_folders: Callable[[str], str], name: str
) -> None:
    words = FLAGS[name].format(net=net).split()
    check_golden(f"convert/{name}", without_folders(refuse("-f", "ONNX", "--modelFile", net.onnx, *words)))


def test_json_is_not_quantized(
    net: Net, tool: Callable[..., Result], tmp_path: Path, without_folders: Callable[[str], str]
) -> None:
    line = ("-f", "MNN", "--modelFile", net.mnn, "--JsonFile", tmp_path / "net.json", "--weightQuantBits", "8")
    result = tool("convert", *line)
    assert (result.status, result.out) == (1, "")
    check_golden("convert/to-json", without_folders(result.err))
    assert not (tmp_path / "net.json").exists()


def test_a_missing_params_file_is_not_created(net: Net, refuse: Refuse, tmp_path: Path) -> None:
    refuse("-f", "ONNX", "--modelFile", net.onnx, "--compressionParamsFile", tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


@pytest.mark.parametrize(
    ("framework", "reason"),
    [
        ("onnx", "did you mean -f ONNX?"),
        ("TORCH", "-f TORCH: "),
        ("XYZ", "-f XYZ: "),
        ("MNN", "the file is ONNX: write -f ONNX"),
        ("TFLITE", "the file is ONNX: write -f ONNX"),
        ("TF", "the file is ONNX: write -f ONNX"),
        ("CAFFE", "the file is ONNX: write -f ONNX"),
        ("JSON", "the file is ONNX: write -f ONNX"),
    ],
)
def test_a_framework_that_is_not_the_files(net: Net, refuse: Refuse, framework: str, reason: str) -> None:
    assert reason in refuse("-f", framework, "--modelFile", net.onnx)


@pytest.mark.parametrize(
    ("line", "reason"), [("--modelFile {net.onnx}", "-f is missing"), ("-f ONNX", "--modelFile is missing")]
)
def test_what_is_missing(net: Net, refuse: Refuse, line: str, reason: str) -> None:
    assert reason in refuse(*line.format(net=net).split())


def test_no_output(net: Net, tool: Callable[..., Result]) -> None:
    result = tool("convert", "-f", "ONNX", "--modelFile", net.onnx)
    assert (result.status, result.out) == (1, "")
    assert "--MNNModel is missing" in result.err


@pytest.mark.parametrize("kind", ["truncated", "random", "empty", "missing"])
@pytest.mark.parametrize("framework", ["ONNX", "MNN"])
def test_broken_sources(net: Net, refuse: Refuse, tmp_path: Path, framework: str, kind: str) -> None:
    whole = (net.onnx if framework == "ONNX" else net.mnn).read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "random": bytes(range(1, 256)) * 9, "empty": b""}
    path = tmp_path / "broken"
    if kind in content:
        path.write_bytes(content[kind])
    reasons = {"truncated": "complete", "random": "complete", "empty": "is empty", "missing": "no such file"}
    text = refuse("-f", framework, "--modelFile", path, "--weightQuantBits", "8")
    assert f"--modelFile {path}: " in text
    assert reasons[kind] in text


@pytest.mark.parametrize("framework", ["ONNX", "MNN"])
def test_weights_beside_the_source_that_are_not_there(
    net: Net,
    workshop: Workshop,
    refuse: Refuse,
    tool: Callable[..., Result],
    tmp_path: Path,
    without_folders: Callable[[str], str],
    framework: str,
) -> None:
    """MNN takes uninitialized memory for them, and calls it a Success."""
    if framework == "ONNX":
        path, beside = tmp_path / "net.onnx", tmp_path / "net.data"
        onnx.save(
            onnx.load(str(net.onnx)), str(path), save_as_external_data=True, location=beside.name, size_threshold=0
        )
    else:
        source = workshop.quantized(net.model, "--saveExternalData").path
        path, beside = tmp_path / "net.mnn", tmp_path / "net.mnn.weight"
        shutil.copy(source, path)
        shutil.copy(source.with_name(source.name + ".weight"), beside)
    line = ("-f", framework, "--modelFile", path, "--weightQuantBits", "8")
    assert tool("convert", *line, "--MNNModel", tmp_path / "made.mnn").status == 0
    beside.write_bytes(beside.read_bytes()[:-9])
    for _ in range(2):
        text = refuse(*line)
        assert beside.name in text
        beside.unlink(missing_ok=True)
    check_golden(
        f"convert/external-weights-missing-{framework}", without_folders(text), source=path.name, weights=beside.name
    )


def test_outputs_that_can_not_be_written(net: Net, refuse: Refuse, tmp_path: Path) -> None:
    source = ("-f", "ONNX", "--modelFile", net.onnx, "--MNNModel")
    assert "does not exist" in refuse(*source, tmp_path / "none" / "net.mnn")
    check_golden("convert/into-a-folder", refuse(*source, tmp_path), folder=tmp_path)
    if os.geteuid():
        tmp_path.chmod(0o500)
        assert "is not writable" in refuse(*source, tmp_path / "net.mnn")


@pytest.mark.parametrize(("stored", "flags"), [("float16", ("--fp16",)), ("w8", ("--weightQuantBits", "8"))])
def test_a_source_that_is_quantized_already(
    net: Net,
    workshop: Workshop,
    refuse: Refuse,
    without_folders: Callable[[str], str],
    stored: str,
    flags: tuple[str, ...],
) -> None:
    small = workshop.quantized(net.model, *flags)
    text = refuse("-f", "MNN", "--modelFile", small.path, "--weightQuantBits", "4")
    check_golden("convert/quantized-already", without_folders(text), stored=stored)


# Params files ---------------------------------------------------------------------------------------------------------


def guide(net: Net, path: Path, bits: int) -> Path:
    """What MNN's converter writes to a params path that does not exist."""
    layers = [{"opName": op.name, "weight": [{"name": op.name, "bits": bits}]} for op in net.model.convolutions]
    algo = {"type": "QUANTIZE", "quantParams": {"layer": layers}}
    path.write_text(json.dumps({"version": "3.6.1", "algo": [algo], "forGuide": True}))
    return path


def test_params_files_that_mnn_ignores(
    net: Net, refuse: Refuse, tmp_path: Path, without_folders: Callable[[str], str]
) -> None:
    whole = net.params.read_bytes()
    write_params(Params((), "uuid"), tmp_path / "no_layers.bin")
    for name, content in (("empty.bin", b""), ("half.bin", whole[: len(whole) // 2]), ("garbage.json", b"{not json")):
        (tmp_path / name).write_bytes(content)
    guide(net, tmp_path / "guide.json", 0)
    guide(net, tmp_path / "sixteen.json", 16)
    guide(net, tmp_path / "guide.bin", 8)
    for name in (
        "empty.bin",
        "half.bin",
        "garbage.json",
        "no_layers.bin",
        "guide.json",
        "sixteen.json",
        "guide.bin",
    ):
        line = ("-f", "ONNX", "--modelFile", net.onnx, "--compressionParamsFile", tmp_path / name)
        for flags in ((), ("--weightQuantBits", "8")):
            text = refuse(*line, *flags)
            check_golden(f"convert/params-{name}", without_folders(text))


def test_bits_by_operator_are_judged_by_operator(
    net: Net, refuse: Refuse, tool: Callable[..., Result], tmp_path: Path, without_folders: Callable[[str], str]
) -> None:
    """The way of MNN's auto_quant.py: its file gives each operator's bits, and 0 leaves one float."""
    names = [op.name for op in net.model.convolutions]
    path, output = guide(net, tmp_path / "bits.json", 4), tmp_path / "mixed.mnn"
    content = json.loads(path.read_text())
    content["algo"][0]["quantParams"]["layer"][0]["weight"][0]["bits"] = 0
    path.write_text(json.dumps(content))
    line = ("-f", "ONNX", "--modelFile", net.onnx, "--compressionParamsFile", path, "--hqq")
    result = tool("convert", *line, "--MNNModel", output)
    assert (result.status, result.err) == (0, "")
    assert "3 of 3" in result.out
    assert {op.name: op.weights[0].label for op in read_model(output).layers} == {
        name: "float32" if name == names[0] else "w4" for name in names
    }
    content["algo"][0]["quantParams"]["layer"][1]["opName"] = "/conv9"
    path.write_text(json.dumps(content))
    check_golden("convert/bits-of-no-operator", without_folders(refuse(*line)))


def misnamed(net: Net, path: Path) -> str:
    """The net's params file with one tensor named as another exporter would; returns the layer's name."""
    op = net.model.convolutions[2]
    write_params(read_params(net.params).renamed({op.output_names[0]: "relu_2"}), path)
    return op.name


@pytest.mark.parametrize("flags", [(), ("--weightQuantBits", "8"), ("--fp16",)], ids=str)
def test_params_that_name_no_tensor_whatever_masks_it(
    net: Net, refuse: Refuse, tool: Callable[..., Result], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    params = tmp_path / "wrong.bin"
    layer = misnamed(net, params)
    text = refuse("-f", "ONNX", "--modelFile", net.onnx, "--compressionParamsFile", params, *flags)
    assert f"params-name-mismatch {layer}: output tensor" in text
    assert "'relu_2'" in text
    repaired = tmp_path / "out" / "wrong.repaired.bin"
    assert f"--compressionParamsFile {repaired}" in text.replace("\\ ", "")
    line = (
        "-f",
        "MNN",
        "--modelFile",
        net.mnn,
        "--MNNModel",
        tmp_path / "net.mnn",
        "--compressionParamsFile",
        repaired,
    )
    assert tool("convert", *line).out.startswith(f"{tmp_path / 'net.mnn'}: int8: 4 of 4")


def test_a_layer_that_the_params_file_does_not_list(
    net: Net, refuse: Refuse, tool: Callable[..., Result], tmp_path: Path
) -> None:
    params, left = read_params(net.params), net.model.convolutions[1]
    kept = tuple(layer for layer in params.layers if layer.name not in (left.output_names[0], left.name))
    assert len(kept) == 3
    write_params(replace(params, layers=kept), tmp_path / "part.bin")
    line = ("-f", "MNN", "--modelFile", net.mnn, "--compressionParamsFile", tmp_path / "part.bin")
    text = refuse(*line)
    assert f"MNQ306 params-incomplete {left.name}" in text
    assert f"MNQ401 layer-is-float {left.name}" in text
    for flags, stored in (
        (("--mnn-skip-layer", left.name), "float32"),
        (("--weightQuantBits", "4"), "w4"),
        (("--fp16",), "float16"),
    ):
        result = tool("convert", *flags, *line, "--MNNModel", tmp_path / "net.mnn")
        assert result.status == 0, result.err
        labels = {op.name: op.weights[0].label for op in read_model(tmp_path / "net.mnn").layers}
        assert labels.pop(left.name) == stored
        assert set(labels.values()) == {"int8"}


def test_params_of_other_weights(refuse: Refuse, workshop: Workshop, tmp_path: Path) -> None:
    """A retrained model with the params file of before: MNN clips its weights, and calls it a Success."""
    first, second = one_layer("conv"), one_layer("conv", seed=1)
    with torch.no_grad():
        second.network[0].weight.mul_(3)  # type: ignore[index]
    old, new = (workshop.floats(one.network, {"input": one.identity[:8]}) for one in (first, second))
    params = by_hand(old, tmp_path / "old.bin")
    text = refuse("-f", "MNN", "--modelFile", new.path, "--compressionParamsFile", params)
    assert "MNQ410 weights-differ" in text
    assert "for other weights" in text


def test_a_large_linear_layer_with_params_from_onnx(
    refuse: Refuse, tool: Callable[..., Result], workshop: Workshop, tmp_path: Path
) -> None:
    """MNN writes float weights under an int8 header. In two steps it does not."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 4)).eval()
    model = workshop.floats(network, {"input": np.random.default_rng(0).random((8, 256), np.float32)})
    params = by_hand(model, tmp_path / "params.bin")
    text = refuse("-f", "ONNX", "--modelFile", model.path.with_name("float.onnx"), "--compressionParamsFile", params)
    assert "MNQ403 weight-buffer-corrupt" in text
    of_coverage = text.partition("more: pytest-mnnquant explain MNQ403")[0] + "more:"
    commands = re.findall(r"pytest-mnnquant convert (-f .*?) (?:&&|shortened|more:)", of_coverage.replace("\\ ", ""))
    assert len(commands) == 2
    assert [tool("convert", *shlex.split(command)).status for command in commands] == [0, 0]


# What only the result shows -------------------------------------------------------------------------------------------


def test_tables_and_native_rnns_stay_float(
    refuse: Refuse, tool: Callable[..., Result], workshop: Workshop, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = workshop.floats(Words().eval(), {"tokens": np.random.default_rng(0).integers(0, 50, (8, 6))})
    line = ("-f", "ONNX", "--modelFile", model.path.with_name("float.onnx"), "--weightQuantBits", "8")
    text = refuse(*line)
    assert "MNQ401 layer-is-float" in text
    assert "tables and matrices" in text
    table = next(op.name for op in model.layers if op.kind == "Const")
    result = tool("convert", f"--mnn-skip-layer={table}", *line, "--MNNModel", tmp_path / "net.mnn")
    assert result.status == 0, result.err
    for flags in (("--useOriginRNNImpl",), ("--convertMatmulToConv", "0")):
        text = refuse(f"--mnn-skip-layer={table}", *line, *flags)
        assert "MNQ401 layer-is-float" in text
        assert f"{' '.join(flags)}: " in text


def test_an_inflated_ratio(refuse: Refuse, tool: Callable[..., Result], workshop: Workshop, tmp_path: Path) -> None:
    """Sparse storage of a layer that is all but zero: 8 bits alone do not make a layer 40 times smaller."""
    zeros = one_layer("linear", zeros=0.98)
    model = workshop.floats(zeros.network, {"input": zeros.identity[:8]})
    line = ("-f", "MNN", "--modelFile", model.path, "--weightQuantBits", "8")
    text = refuse(*line, "--detectSparseSpeedUp")
    assert "MNQ402 " in text
    assert "--detectSparseSpeedUp" in text
    assert tool("convert", *line, "--MNNModel", tmp_path / "net.mnn").status == 0


def test_what_mnn_can_not_convert(net: Net, refuse: Refuse, tmp_path: Path) -> None:
    graph = onnx.load(str(net.onnx))
    graph.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(graph, str(tmp_path / "odd.onnx"))
    text = refuse("-f", "ONNX", "--modelFile", tmp_path / "odd.onnx", "--weightQuantBits", "8")
    assert "odd.onnx" in text
    assert "NoSuchOperator" in text


def test_a_conversion_that_takes_too_long(net: Net, refuse: Refuse, without_folders: Callable[[str], str]) -> None:
    text = refuse("--mnn-timeout", "0.001", "-f", "ONNX", "--modelFile", net.onnx, "--fp16")
    check_golden("convert/a-conversion-that-takes-too-long", without_folders(text))
    for given in ("soon", "0", "nan"):
        check_golden("convert/a-timeout-that-is-none", refuse(f"--mnn-timeout={given}"), given=f"--mnn-timeout {given}")
    check_golden("convert/an-empty-glob", refuse("--mnn-skip-layer="))


def test_external_weights_are_replaced_together(net: Net, tool: Callable[..., Result], tmp_path: Path) -> None:
    line = ("-f", "MNN", "--modelFile", net.mnn, "--MNNModel", tmp_path / "net.mnn", "--saveExternalData")
    assert tool("convert", *line).status == 0
    shutil.copy(tmp_path / "net.mnn.weight", tmp_path / "before")
    assert tool("convert", *line, "--weightQuantBits", "8").status == 0
    assert read_model(tmp_path / "net.mnn").external_missing == 0
    assert (tmp_path / "net.mnn.weight").stat().st_size < (tmp_path / "before").stat().st_size / 3


@pytest.mark.parametrize("read", ["--modelFile", "--compressionParamsFile"])
def test_no_file_that_is_read_is_written(
    tool: Callable[..., Result], net: Net, tmp_path: Path, without_folders: Callable[[str], str], read: str
) -> None:
    given = {"--modelFile": net.onnx, "--compressionParamsFile": net.params}
    copies = {flag: shutil.copy(path, tmp_path / path.name) for flag, path in given.items()}
    before = Path(copies[read]).read_bytes()
    line = [word for pair in copies.items() for word in pair]
    result = tool("convert", "-f", "ONNX", *line, "--MNNModel", copies[read])
    assert result.status == 1
    check_golden("convert/the-output-is-read-as-well", without_folders(result.err), file=Path(copies[read]).name)
    assert Path(copies[read]).read_bytes() == before
