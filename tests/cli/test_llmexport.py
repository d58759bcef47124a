"""`pytest-mnnquant llmexport`: harmful arguments are refused before anything runs; the folder is judged."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from pytest_mnnquant.cli.llmexport_arguments import read_arguments, refusals
from pytest_mnnquant.cli.main import main
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from tests.llm.conftest import DATA, EXPORTS

TIED, UNTIED = (read_checkpoint(DATA / name) for name in ("qwen2", "llama"))


def refused(arguments: str, *, is_tied: bool = True, has_scale_bit: bool = True) -> list[str]:
    """The options that are refused."""
    given = read_arguments(arguments.split(), has_scale_bit=has_scale_bit)
    lines = refusals(given, TIED if is_tied else UNTIED)
    return [line.split(":")[0].split(" ")[0] for line in lines]


@pytest.mark.parametrize(
    "arguments",
    [
        "--quant_bit 4 --quant_block 32",
        "--quant_bit 8 --quant_block=0 --sym",
        "--quant_bit 3 --lm_quant_bit 8 --quant_block 64",
        "--quant_bit 2 --seperate_embed --embed_bit 8",
        "--quant_bit 4 --hqq --verbose",
        "--smooth --act_bit 8 --calib_data wiki",
    ],
)
def test_arguments_that_do_what_they_say_are_taken(arguments: str) -> None:
    assert refused(arguments) == []


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("--quant_block 128", ["--quant_block"]),
        ("--lm_quant_block 256", ["--lm_quant_block"]),
        ("--quant_block 48", ["--quant_block"]),
        ("--quant_bit 2", ["2"]),
        ("--lm_quant_bit 3", ["3"]),
        ("--embed_bit 8", ["--embed_bit"]),
        ("--skip_weight", ["--skip_weight"]),
        ("--export onnx", ["--export"]),
        ("--act_bit 8 --act_sym", ["--act_bit", "--act_sym"]),
        ("--ppl --type qwen2 --calib_data x", ["--calib_data", "--type", "--ppl"]),
        ("--gptq_path nowhere", ["--gptq_path"]),
        (f"--gptq_path {DATA / 'qwen2-gptq'}", ["--gptq_path"]),
        (f"--quant_config {DATA / 'dotted.json'}", ["--quant_config"]),
        ("--quant_config nowhere.json", ["--quant_config"]),
    ],
)
def test_arguments_that_are_ignored_or_give_garbage_are_refused(arguments: str, options: list[str]) -> None:
    assert refused(arguments) == options


def test_what_depends_on_the_model_and_the_exporter() -> None:
    assert refused("--quant_bit 2 --embed_bit 8", is_tied=False) == []
    gptq = f"--gptq_path {DATA / 'qwen2-gptq'}"
    assert refused(gptq, has_scale_bit=False) == []
    assert refused(f"{gptq} --scale_bit 32") == []
    assert refused(f"--quant_config {DATA / 'layers.json'}") == []


@pytest.mark.parametrize(
    "words",
    [
        ["python", "llmexport.py"],
        ["--", "python"],
        ["--", "python", "nowhere.py"],
        ["-x", "--", "python", __file__],
        ["--", sys.executable, __file__, "--quant_bit", "4"],
        ["--", sys.executable, __file__, "--path", "nowhere"],
    ],
)
def test_commands_that_can_not_be_used_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llmexport", *words]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llmexport", "--help"]) == 0
    assert main(["llmexport"]) == 1
    assert "llmexport.py" in capsys.readouterr().out


_EXPORTER = """
import os, shutil, sys
from MNN.tools import mnnconvert
assert os.system("pip install -U aliyun-log-python-sdk") == 1
assert not hasattr(mnnconvert, "__file__")
shutil.copytree(sys.argv[sys.argv.index("--copy") + 1], sys.argv[sys.argv.index("--dst_path") + 1])
sys.argv = ["taken"]
sys.exit(int(os.environ.get("STATUS", "0")))
"""


@pytest.mark.mnn
@pytest.mark.slow
def test_the_exporter_runs_without_telemetry_and_its_folder_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llmexport.py").write_text(_EXPORTER)
    shutil.copytree(DATA / "qwen2", tmp_path / "hf")
    command = ["--", sys.executable, "llmexport.py", "--path", "hf", "--quant_block", "32", "--dst_path"]
    bad = tmp_path / "bad"
    shutil.copytree(EXPORTS / "qwen2-w4", bad)
    options = json.loads((bad / "export_args.json").read_text())
    (bad / "export_args.json").write_text(json.dumps({**options, "quant_bit": 8}))
    assert main(["llmexport", *command, "out2", "--copy", str(bad)]) == 1
    assert "MNQ402" in capfd.readouterr().out
    monkeypatch.setenv("STATUS", "3")
    assert main(["llmexport", *command, "out3", "--copy", str(EXPORTS / "qwen2-w4")]) == 1
