"""`pytest-mnnquant target`: what it says, and its exit status."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from pytest_mnnquant.cli.main import main
from pytest_mnnquant.targets.emulator import Emulator
from tests.golden_text import check_golden

Capture = pytest.CaptureFixture[str]


def test_a_configured_target_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    command = shlex.quote(sys.executable)
    (tmp_path / "pyproject.toml").write_text(f'[tool.mnnquant.targets.mine]\ncommand = "{command}"\n')
    monkeypatch.chdir(tmp_path)
    assert main(["target", "check", "mine"]) == 0
    assert "execution: yes" in capsys.readouterr().out
    assert main(["target", "check", "host"]) == 0


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("", "unknown-target"),
        ("[tool.mnnquant]\ntargets = 3", "targets-is-no-table"),
        ("[tool.mnnquant.targets.mine]\nhost = 'x'", "no-launcher"),
        ("[tool.mnnquant.targets.mine]\ncommand = 'x'\nssh = 'y'", "two-launchers"),
        (
            "[tool.mnnquant.targets.mine]\nssh = 'y'\ndevice = true",
            "unknown-key",
        ),
        ("[tool.mnnquant.targets.mine]\nssh = 'y'\noptions = '-v'", "key-of-another-type"),
        (
            "[tool.mnnquant.targets.mine]\ncommand = 'x'\nmnn = 'new'",
            "no-version",
        ),
        ("[tool.mnnquant.targets.mine]\nssh = '-oProxyCommand=x'", "no-machine"),
        ("[tool.mnnquant.targets.host]\ncommand = 'x'", "reserved-name"),
        ("[tool.mnnquant.targets.mine]\ncommand = 'no-such-program'", "no-such-program"),
    ],
)
def test_what_does_not_work_is_one_line_and_status_1(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, text: str, entry: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.toml").write_text(text)
    assert main(["target", "check", "mine", "--config", "other.toml"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    check_golden(f"target/bad-{entry}", error)


def test_what_is_set_up_is_kept_and_told(capsys: Capture) -> None:
    if Emulator().missing:
        pytest.skip(f"the emulator is not set up: {Emulator().add_command}")
    assert main(["target", "add", "aarch64"]) == 0
    out = capsys.readouterr().out
    assert "verified by its SHA-256" in out
    assert "accuracy: yes" in out
    assert "unpacking" not in out


@pytest.mark.parametrize("words", [["add", "x86"], ["add", "aarch64", "--mnn", "latest"], []])
def test_what_can_not_be_added_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["target", *words])
    assert error.value.code == 2
