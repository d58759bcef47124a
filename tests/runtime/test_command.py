"""Child processes import from the folders of this process, and use its UTF-8 mode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mnnquant.runtime.command import PROGRAMS, Command
from pytest_mnnquant.runtime.programs.paths import PATHS, add_inherited_paths
from pytest_mnnquant.runtime.programs.process import PARENT, given_parent
from tests.conftest import TIMEOUT

PRINT = """
import json, os, sys
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
sys.path.insert(0, PROGRAMS)
import paths
paths.add_inherited_paths()
open(sys.argv[1].replace("job", "said"), "w").write(json.dumps([sys.path, sys.flags.utf8_mode]))
"""


def child(folder: Path) -> tuple[list[str], int]:
    """The folders that a child imports from, and whether it has UTF-8 mode."""
    (folder / "program.py").write_text(PRINT.replace("PROGRAMS", repr(str(PROGRAMS))))
    (folder / "job.json").write_text("{}")
    assert Command(folder / "program.py").run(folder / "job.json", TIMEOUT) == 0, (folder / "log.txt").read_text()
    paths, mode = json.loads((folder / "said.json").read_text())
    return paths, mode


@pytest.mark.parametrize("safe", ["", "1"])
def test_a_child_imports_from_the_folders_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safe: str
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", safe)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "installed"), *sys.path])
    paths, mode = child(tmp_path)
    assert paths.index(str(tmp_path / "installed")) > paths.index(os.path.dirname(os.__file__))  # noqa: PTH120
    assert mode == sys.flags.utf8_mode


def test_folders_that_are_known_are_not_added_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["a"])
    monkeypatch.setenv(PATHS, os.pathsep.join(["a", "b", "", "b"]))
    add_inherited_paths()
    assert sys.path == ["a", "b"]


@pytest.mark.parametrize("words", [["--serve"], ["job.json"]])
def test_a_child_whose_parent_ended_before_it_was_ready_ends_at_once(tmp_path: Path, words: list[str]) -> None:
    """Stdin stays open: the end of the parent is all that the child can notice."""
    environment = {**os.environ, PARENT: "1"}
    command = [sys.executable, str(PROGRAMS), *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stderr is not None
        assert (child.wait(TIMEOUT), child.stderr.read()) == (1, b"")


def test_a_child_of_a_child_is_not_given_the_first_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT, "17")
    assert (given_parent(), PARENT in os.environ, given_parent()) == (17, False, 0)
