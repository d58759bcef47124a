"""Folders of killed processes are removed, those of running ones and of others stay."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.cache.temporary import remove_abandoned, temporary_prefix


def test_only_folders_of_ended_processes_are_removed(tmp_path: Path) -> None:
    ended = 2**22 + 1  # Larger than any process id.
    mine = temporary_prefix()
    gone = mine.replace(f"-{os.getpid()}-", f"-{ended}-")
    for name in (f"{mine}a", f"{gone}a", "mnnquant-elsewhere-1-a", f"other-{gone}", f"my{gone}"):
        (tmp_path / name / "deep").mkdir(parents=True)
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{mine}a",
        "mnnquant-elsewhere-1-a",
        f"other-{gone}",
        f"my{gone}",
    }
    remove_abandoned(tmp_path / "missing")


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs namespaces of Linux")
def test_folders_of_another_container_stay(tmp_path: Path) -> None:
    """Containers may share the folder and the name of the host; their process ids mean other processes."""
    namespace = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
    gone = temporary_prefix().replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    assert namespace in gone
    for name in (gone, gone.replace(namespace, f"{namespace}1"), gone.replace(f"_{namespace}", "")):
        (tmp_path / name).mkdir()
    remove_abandoned(tmp_path)
    assert gone not in {path.name for path in tmp_path.iterdir()}
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.mnn
def test_a_killed_build_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pytest_mnnquant.cache.store import Store\n"
        "Store(Path(sys.argv[1])).folder('float', {}, lambda place: os.kill(os.getpid(), signal.SIGKILL))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert list(tmp_path.rglob("unfinished-*"))
    Store(tmp_path)
    assert not list(tmp_path.rglob("unfinished-*"))
