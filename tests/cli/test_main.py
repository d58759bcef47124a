"""`pytest-mnnquant inspect | diff | explain`: what they say, and their exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mnnquant.cli.main import main
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from tests.golden_text import check_golden

Capture = pytest.CaptureFixture[str]


def test_inspect_lists_every_layer_by_its_whole_name(digits_w4: Variant, capsys: Capture) -> None:
    assert main(["inspect", str(digits_w4.model.path)]) == 0
    text = capsys.readouterr().out
    for op in digits_w4.model.layers:
        assert f"{op.weight_count:,}" in text
        assert op.name in text
    check_golden("inspect/verdict-of-a-w4-model", text.splitlines()[-1])


def test_inspect_as_json_accounts_for_the_size(digits_w4: Variant, capsys: Capture) -> None:
    assert main(["inspect", "--json", str(digits_w4.model.path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["classes"].values()) == found["bytes"] == digits_w4.model.size
    assert {layer["bits"] for layer in found["layers"]} == {4}


@pytest.mark.parametrize(("recipe", "status"), [("w4", 0), ("w8", 1), ("int8", 1), ("fp16", 1)])
def test_inspect_fails_when_the_file_is_not_what_is_expected(digits_w4: Variant, recipe: str, status: int) -> None:
    assert main(["inspect", str(digits_w4.model.path), "--expect", recipe]) == status


def test_what_differs_from_the_expected_recipe_is_named(digits_w4: Variant, capsys: Capture) -> None:
    assert main(["inspect", "--expect=int8", str(digits_w4.model.path)]) == 1
    largest = max(digits_w4.model.layers, key=lambda op: op.weight_count)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("expected int8: FAILED")
    assert largest.name in line
    assert main(["inspect", "--json", "--expect=int8", str(digits_w4.model.path)]) == 1
    assert json.loads(capsys.readouterr().out)["expected"] == {"recipe": "int8", "share": 0.0, "required": 0.99}


def test_several_models_are_described_one_by_one_and_the_worst_decides(
    digits: Prepared, digits_w4: Variant, tmp_path: Path, capsys: Capture
) -> None:
    good, plain, junk = digits_w4.model.path, digits.model.path, tmp_path / "junk.mnn"
    junk.write_bytes(b"junk" * 100)
    assert main(["inspect", "--expect=w4", str(good), str(good)]) == 0
    assert capsys.readouterr().out.count("verdict: ") == 2
    assert main(["inspect", "--expect=w4", str(good), str(plain)]) == 1
    text = capsys.readouterr().out
    assert (text.count("verdict: "), text.count("FAILED")) == (2, 1)
    assert main(["inspect", "--expect=w4", str(junk), str(plain), str(good)]) == 2
    output = capsys.readouterr()
    assert (output.out.count("verdict: "), output.err.count("\n")) == (2, 1)


def test_several_models_are_a_list_in_json(
    digits: Prepared, digits_w4: Variant, tmp_path: Path, capsys: Capture
) -> None:
    missing = tmp_path / "none.mnn"
    paths = [digits_w4.model.path, digits.model.path, missing]
    assert main(["inspect", "--json", *map(str, paths)]) == 2
    content = json.loads(capsys.readouterr().out)
    assert [entry["path"] for entry in content] == list(map(str, paths))
    assert ("error" in content[2], "layers" in content[0]) == (True, True)


@pytest.mark.mnn
def test_a_reader_that_stops_early_is_no_error() -> None:
    command = [sys.executable, "-m", "pytest_mnnquant.cli.main", "explain"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate()
    assert errors == b""


def test_inspect_of_a_broken_file_is_one_line_and_status_2(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "junk.mnn").write_bytes(b"junk" * 100)
    for name in ("junk.mnn", "none.mnn"):
        assert main(["inspect", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert name in error
        assert error.count("\n") == 1


def test_diff_of_a_model_with_itself_is_nothing(digits: Prepared, capsys: Capture) -> None:
    path = str(digits.model.path)
    assert main(["diff", path, path]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_diff_tells_storage_weights_and_bytes(digits: Prepared, digits_w4: Variant, capsys: Capture) -> None:
    assert main(["diff", str(digits.model.path), str(digits_w4.model.path)]) == 1
    text = capsys.readouterr().out
    for op in digits.model.layers:
        assert f"{op.name}: stored float32 -> w4" in text
    assert f"bytes: {digits.model.size:,} -> {digits_w4.model.size:,}" in text
    assert main(["diff", "--json", str(digits.model.path), str(digits_w4.model.path)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["classes"]["float32"] == [sum(op.weight_bytes for op in digits.model.layers), 0]


@pytest.mark.mnn
@pytest.mark.parametrize(("tool", "argument"), [("convert", "OF MNNCONVERT"), ("calibrate", "CONFIG.json")])
def test_tools_without_arguments_print_their_usage(tool: str, argument: str, capsys: Capture) -> None:
    for arguments, status in (([], 1), (["--help"], 0)):
        assert main([tool, *arguments]) == status
        text = capsys.readouterr().out
        assert text.startswith(f"usage: pytest-mnnquant {tool} ")
        assert argument in text
        assert "--mnn-skip-layer GLOB" in text


def test_the_tools_are_listed(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in ("inspect", "explain", "convert", "calibrate"))
