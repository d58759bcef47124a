"""`inspect` and `diff` of the folders of language models."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from pytest_mnnquant.cli.main import main
from tests.golden_text import check_golden
from tests.llm.conftest import EXPORTS, HEALTHY, change_json


def inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["inspect", str(path)])
    return status, capsys.readouterr().out


@pytest.mark.parametrize("name", ["qwen2-config", "qwen3-w4-embedding8", "qwen2-w4-head"])
def test_a_folder_is_a_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = inspect(EXPORTS / name, capsys)
    assert status == 0
    check_golden(f"llm-inspect/{name}", out.replace(str(EXPORTS), "exports"))


@pytest.mark.parametrize("name", HEALTHY)
def test_the_json_form_adds_up(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(EXPORTS / name), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert sum(file["bytes"] for file in content["files"]) == content["bytes"]
    assert content["missing_files"] == content["faults"] == []
    assert {layer["fault"] for layer in content["layers"]} == {""}


def test_what_the_runtime_can_not_load_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copytree(EXPORTS / "qwen3-w4-embedding8", tmp_path / "out"))
    (path / "embeddings_int8.bin").unlink()
    data = (path / "llm.mnn.weight").read_bytes()
    (path / "llm.mnn.weight").write_bytes(data[:-100])
    (path / "tokenizer.mtok").write_bytes(b"430 4\n")
    status, out = inspect(path, capsys)
    assert status == 1
    check_golden("llm-inspect/broken", out, folder=path)


def test_another_folder_is_status_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    check_golden("llm-inspect/other-folder", error, folder=tmp_path)


def test_a_folder_differs_from_another_one_in_files_layers_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = EXPORTS / "qwen2-w4", EXPORTS / "qwen2-config"
    assert main(["diff", str(first), str(first)]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert main(["diff", str(first), str(second)]) == 1
    check_golden("llm-inspect/difference", capsys.readouterr().out)
    assert main(["diff", str(first), str(second), "--json"]) == 1
    changes = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in changes["layers"]} == {
        "/layers.0/mlp/down_proj/Linear",
        "/layers.1/self_attn/q_proj/Linear",
        "/layers.1/mlp/up_proj/Linear",
    }


def test_another_template_is_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copytree(EXPORTS / "qwen2-w4", tmp_path / "out"))
    change_json(path / "llm_config.json", jinja={"chat_template": "x", "eos": "<|im_end|>"})
    assert main(["diff", str(EXPORTS / "qwen2-w4"), str(path), "--json"]) == 1
    assert list(json.loads(capsys.readouterr().out)["settings"]) == ["chat_template"]


def test_inspecting_takes_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    inspect(EXPORTS / "qwen2-w4", capsys)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(
    ("name", "recipe", "status"),
    [
        ("qwen2-w4", "w4", 0),
        ("qwen2-w4", "w4b32", 0),
        ("qwen2-w4", "w4b32-scale16", 0),
        ("qwen2-w4", "w4b64", 1),
        ("qwen2-w4", "w8", 1),
        ("qwen2-w4-old", "w4b32-scale16", 1),
        ("qwen2-w8-sym", "w8-sym", 0),
        ("qwen2-fp16", "fp16", 0),
        ("qwen3-w3", "w3b32", 1),
        ("llama-w4-old", "w4b32", 1),
        ("qwen2-w4", "int8", 1),
    ],
)
def test_a_folder_is_compared_with_a_recipe(
    name: str, recipe: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(EXPORTS / name), "--expect", recipe, "--json"]) == status
    expected = json.loads(capsys.readouterr().out)["expected"]
    assert (expected["share"] >= expected["required"]) is not bool(status)
