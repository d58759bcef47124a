"""One fresh environment for all pages: what a reader types who has nothing yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.book import Shell, blocks, commands, problems

DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout. Skips where there is no registry to take the tools and packages from."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    reached = subprocess.run([*pip, "download", "-q", "--no-deps", "-d", str(folder), "iniconfig"], capture_output=True)
    if reached.returncode:
        pytest.skip("pip reaches no package registry, so no environment can be made")
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("pytest_mnnquant-*.whl")
    return built


@pytest.fixture(scope="session")
def reader(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A reader who has set up as the tutorial says, and typed nothing else yet."""
    shell = Shell(tmp_path_factory.mktemp("reader"), wheel=wheel)
    first = next(block for block in blocks(page("docs/tutorial.md")) if block.language == "console")
    for command in commands(first):
        done = shell.run(command.line)
        assert problems(command, done.stdout, done.returncode) == []
    return shell
