"""`pytest-mnnquant llmexport`: harmful arguments are refused before anything runs; the folder is judged."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from pytest_mnnquant.cli.llmexport import _absolute, _has_scale_bit
from pytest_mnnquant.cli.llmexport_arguments import read_arguments, refusals
from pytest_mnnquant.cli.main import main
from pytest_mnnquant.cli.written_files import file_states, unwritten_files
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from tests.llm.conftest import DATA, EXPORTS

TIED, UNTIED = (read_checkpoint(DATA / name) for name in ("qwen2", "llama"))


def refused(arguments: str, *, is_tied: bool = True, has_scale_bit: bool = True) -> list[str]:
    """The options that are refused."""
    given = read_arguments(arguments.split(), has_scale_bit=has_scale_bit)
    lines = refusals(given, TIED if is_tied else UNTIED)
    return [line.split(":")[0].split(" ")[0] for line in lines]


@pytest.fixture
def exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command of an exporter that copies an export, without the folder to write."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llmexport.py").write_text(_EXPORTER)
    shutil.copytree(DATA / "qwen2", tmp_path / "hf")
    return ["--", sys.executable, "llmexport.py", "--path", "hf", "--quant_block", "32", "--dst_path"]


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """An export that has other bits than its options request."""
    folder = tmp_path / "bad"
    shutil.copytree(EXPORTS / "qwen2-w4", folder)
    options = json.loads((folder / "export_args.json").read_text())
    (folder / "export_args.json").write_text(json.dumps({**options, "quant_bit": 8}))
    return folder


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
        ("--quant_bl 7 --lm_quant_bi=8", ["--lm_quant_bi", "--quant_bl"]),
        ("--skip", ["--skip"]),
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
        ["words", "--", "python", __file__],
        ["--mnn-strict", "words", "--", "python", __file__],
        ["--mnn-quantized=out", "--", "python", __file__],
        ["--mnn-model", "hf", "--", "python", __file__],
        ["--mnn-config=x.toml", "--", "python", __file__],
        ["--mnn-timeout", "--", "python", __file__],
        ["--mnn-strict=1", "--", "python", __file__],
        ["--mnn-quant=out", "--", "python", __file__],
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
source, target = (sys.argv[sys.argv.index(name) + 1] for name in ("--copy", "--dst_path"))
if os.path.isdir(source):
    shutil.copytree(source, target, dirs_exist_ok=True)
sys.argv = ["taken"]
sys.exit(int(os.environ.get("STATUS", "0")))
"""


@pytest.mark.mnn
@pytest.mark.slow
def test_the_exporter_runs_without_telemetry_and_its_folder_is_judged(
    exporter: list[str], bad: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only -k size -p no:mnnquant")
    monkeypatch.setenv("PYTEST_PLUGINS", "a_plugin_that_is_missing")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert main(["llmexport", *exporter, "out2", "--copy", str(bad)]) == 1
    assert "MNQ402" in capfd.readouterr().out
    monkeypatch.setenv("STATUS", "3")
    assert main(["llmexport", *exporter, "out3", "--copy", str(EXPORTS / "qwen2-w4")]) == 1


@pytest.mark.mnn
@pytest.mark.slow
def test_only_failed_checks_say_that_the_export_is_another_one(
    exporter: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--mnn-min-coverage=not-a-number", *exporter, "out", "--copy", str(EXPORTS / "qwen2-w4")]
    assert main(["llmexport", *words]) == 1
    assert "status 4" in capfd.readouterr().out


@pytest.mark.mnn
@pytest.mark.slow
def test_an_older_export_does_not_count(exporter: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(EXPORTS / "qwen2-w4", tmp_path / "out")
    assert main(["llmexport", *exporter, "out", "--copy", "nothing"]) == 1
    captured = capfd.readouterr()
    assert "llm.mnn.weight" in captured.err
    assert "MNQ" not in captured.out


def test_files_that_a_program_writes_differ_from_older_ones(tmp_path: Path) -> None:
    assert file_states(tmp_path / "nowhere") == {}
    folder = tmp_path / "out"
    shutil.copytree(EXPORTS / "qwen2-w4", folder)
    assert unwritten_files(folder, {}) == []
    before = file_states(folder)
    assert unwritten_files(folder, before) == ["llm.mnn", "llm.mnn.weight"]
    (tmp_path / "same").write_bytes((folder / "llm.mnn").read_bytes())
    (tmp_path / "same").replace(folder / "llm.mnn")
    assert unwritten_files(folder, before) == ["llm.mnn.weight"]
    (folder / "llm_config.json").write_text("{")
    (folder / "llm.mnn.weight").unlink()
    assert unwritten_files(folder, before) == []


def test_only_the_package_of_the_exporter_is_read(tmp_path: Path) -> None:
    script = tmp_path / "llmexport.py"
    script.write_text("import utils  # scale_bit")
    for name in ("other/z.py", "utils/custom/x.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text('parser.add_argument("--scale_bit")')
    (tmp_path / "gone.py").symlink_to("nowhere")
    (tmp_path / "folder.py").mkdir()
    assert not _has_scale_bit(script)
    (tmp_path / "utils" / "arguments.py").write_text("parser.add_argument('--scale_bit')")
    assert _has_scale_bit(script)


def test_names_of_files_are_absolute_in_the_run_that_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eval.txt").touch()
    assert _absolute("--mnn-report", "new.json") == f"--mnn-report={tmp_path / 'new.json'}"
    assert _absolute("--mnn-evaluation", "eval.txt") == f"--mnn-evaluation={tmp_path / 'eval.txt'}"
    assert _absolute("--mnn-max-kl", "0.1") == "--mnn-max-kl=0.1"
    assert _absolute("--mnn-strict", "") == "--mnn-strict"
