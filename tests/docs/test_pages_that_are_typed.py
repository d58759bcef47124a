"""What the manual types is typed as it stands, by a reader who has nothing yet: files, commands, what they print."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.book import Shell, problems
from tests.docs.conftest import page


def play(shell: Shell, text: str) -> None:
    """Type it all; fail with every command that does not end, or print, as the page says."""
    played = list(shell.play(text))
    assert played
    found = [problem for one in played for problem in problems(*one)]
    assert not found, "\n".join(found)


def example(name: str, folder: Path, programs: Path) -> None:
    """Copy an example away, as its users do, and type its page."""
    copy = shutil.copytree(ROOT / "examples" / name, folder / name)
    play(Shell(copy, programs), page(f"examples/{name}/README.md"))


def test_the_tutorial(reader: Shell) -> None:
    play(reader, page("docs/tutorial.md").partition("## A network of your own")[2])


@pytest.mark.parametrize("name", ["zero-code", "own-tests"])
def test_the_examples_with_torch(name: str, reader: Shell, tmp_path: Path) -> None:
    example(name, tmp_path, reader.folder / ".venv")


def test_the_example_without_torch(wheel: Path, tmp_path: Path) -> None:
    programs = tmp_path / "plain"
    subprocess.run([sys.executable, "-m", "venv", str(programs)], check=True)
    subprocess.run([str(programs / "bin" / "pip"), "install", "-q", str(wheel)], check=True, capture_output=True)
    assert not list(programs.glob("lib/python*/site-packages/torch*"))
    example("shell-pipeline", tmp_path, programs)
