"""What the manual types is typed as it stands, by a reader who has nothing yet: files, commands, what they print."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.docs.book import Shell, problems
from tests.docs.conftest import page


def play(shell: Shell, text: str) -> None:
    """Type it all; fail with every command that does not end, or print, as the page says."""
    played = list(shell.play(text))
    assert played
    found = [problem for one in played for problem in problems(*one)]
    assert not found, "\n".join(found)


def example(name: str, folder: Path, programs: Path, *pages: str) -> None:
    """Copy an example away, as its users do, and type its page, and others that are about it."""
    shell = Shell(shutil.copytree(ROOT / "examples" / name, folder / name), programs)
    for text in (page(f"examples/{name}/README.md"), *map(page, pages)):
        play(shell, text)


def test_the_tutorial(programs: Path, tmp_path: Path) -> None:
    play(Shell(tmp_path, programs), page("docs/tutorial.md").partition("## A network of your own")[2])


def test_the_example_that_is_zero_code_and_calibration(programs: Path, tmp_path: Path) -> None:
    example("zero-code", tmp_path, programs, "docs/calibration.md")


def test_the_example_of_ones_own_tests(programs: Path, tmp_path: Path) -> None:
    example("own-tests", tmp_path, programs)


def test_the_readme(programs: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    play(Shell(tmp_path, programs), page("README.md"))


def test_the_example_without_torch_and_guarding(wheel: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    subprocess.run([sys.executable, "-m", "venv", str(plain)], check=True)
    subprocess.run([str(plain / "bin" / "pip"), "install", "-q", str(wheel)], check=True)
    assert not list(plain.glob("lib/python*/site-packages/torch*"))
    example("shell-pipeline", tmp_path, plain, "docs/guarding.md")
