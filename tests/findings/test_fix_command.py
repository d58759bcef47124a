"""Commands of fix lines: what a shell makes of them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pytest_mnnquant.findings.fix_command import ConvertCommand, mnn_source, shell_command, skip_option, working_path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_paths_below_the_working_directory_are_relative_and_others_absolute(folder: Path) -> None:
    assert working_path(folder / "out" / "net.mnn") == str(Path("out", "net.mnn"))
    assert working_path(Path("out/net.mnn")) == str(Path("out", "net.mnn"))
    assert working_path(folder.parent / "net.mnn") == str(folder.parent / "net.mnn")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a b.mnn", "it's.mnn", "$HOME.mnn", "`id`.mnn", "--odd.mnn", "*.mnn", "模型.mnn"])
def test_a_shell_gives_the_program_the_very_words(folder: Path, name: str) -> None:
    script = "import sys; print(sys.argv[1:])"
    line = shell_command(sys.executable, "-c", script, folder / name, name)
    output = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str([name, name])


@pytest.mark.parametrize("layer", ["/conv/Conv_output_0", "layers[0].fc", "what?", "two words", "*"])
def test_the_option_matches_the_layer_and_no_other(layer: str) -> None:
    (word,) = shlex.split(skip_option(layer))
    name, _, pattern = word.partition("=")
    assert name == "--mnn-skip-layer"
    assert fnmatchcase(layer, pattern)
    assert not fnmatchcase("another", pattern)


def test_a_convert_command_names_all_that_the_converter_needs(folder: Path) -> None:
    command = ConvertCommand(mnn_source(folder / "float.mnn"), folder / "net.mnn", skip=("/head/*",))
    head = ["pytest-mnnquant", "convert", "-f", "MNN", "--modelFile", "float.mnn", "--MNNModel", "net.mnn"]
    assert shlex.split(command.with_flags("--weightQuantBits", "8")) == [
        *head, "--weightQuantBits", "8", "--mnn-skip-layer=/head/*"
    ]  # fmt: skip
    assert shlex.split(command.with_params(folder / "my params.bin", "--weightQuantBits", "8")) == [
        *head, "--compressionParamsFile", "my params.bin", "--weightQuantBits", "8", "--mnn-skip-layer=/head/*"
    ]  # fmt: skip
