"""One fresh environment for all pages, and all workers: what a reader types who has nothing yet."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.book import Shell, blocks, commands, problems

DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one worker makes; the others wait for it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            make(folder)
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout. Skips where there is no registry to take the tools and packages from."""
    pip = [sys.executable, "-m", "pip"]

    def build(folder: Path) -> None:
        tried = subprocess.run([*pip, "download", "-q", "--no-deps", "-d", str(folder), "iniconfig"], check=False)
        if tried.returncode:
            pytest.skip("pip reaches no package registry, so no environment can be made")
        subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True)

    (built,) = once(tmp_path_factory, "wheel", build).glob("pytest_mnnquant-*.whl")
    return built


@pytest.fixture(scope="session")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of a reader who has set up as the tutorial says, and typed nothing else yet."""
    first = next(block for block in blocks(page("docs/tutorial.md")) if block.language == "console")

    def set_up(folder: Path) -> None:
        shell = Shell(folder, wheel=wheel)
        for command in commands(first):
            done = shell.run(command.line)
            assert problems(command, done.stdout, done.returncode) == []

    return once(tmp_path_factory, "reader", set_up) / ".venv"
