"""`pytest-mnnquant inspect | diff | explain`: what they say, and their exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_mnnquant.cli.main import main
from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.quantize.float_model import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.report import pages
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


@pytest.mark.parametrize("code", RULES)
def test_every_rule_is_explained(code: str, capsys: Capture) -> None:
    assert main(["explain", code.lower()]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# {code} {RULES[code].name}\n")
    assert f"{RULES[code].severity.value}, " in text


def test_a_rule_is_explained_by_its_name_too_and_without_its_page(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_FOLDERS", ())
    assert main(["explain", "params-name-mismatch"]) == 0
    assert RULES["MNQ304"].meaning in capsys.readouterr().out


@pytest.mark.mnn
@pytest.mark.parametrize(("tool", "argument"), [("convert", "OF MNNCONVERT"), ("calibrate", "CONFIG.json")])
def test_tools_without_arguments_tell_their_usage(tool: str, argument: str, capsys: Capture) -> None:
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
    assert "mnnconvert, verified" in text
    assert "mnnquant, verified" in text


def test_an_unknown_rule_is_status_2_and_lists_the_known(capsys: Capture) -> None:
    assert main(["explain", "MNQ999"]) == 2
    assert "MNQ304" in capsys.readouterr().err
