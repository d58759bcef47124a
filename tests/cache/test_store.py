"""Artifacts by content: made once, whole or not at all, whoever makes them at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.cache.manifest import MANIFEST, file_digest
from pytest_mnnquant.cache.store import Store, run_folder, versions

Build = Callable[[Path], None]


class Builder:
    """Counts how often it builds."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self, folder: Path) -> None:
        self.built += 1
        (folder / "made.txt").write_text(str(self.built))


def contents(root: Path) -> list[str]:
    return sorted(
        path.relative_to(root).parts[-1] for path in root.rglob("*") if path.is_file() and path.name[0] != "."
    )


def test_the_same_inputs_are_built_once_in_this_run_and_the_next(tmp_path: Path) -> None:
    build = Builder()
    first = Store(tmp_path).folder("float", {"a": 1, "b": "x"}, build)
    assert (first / "made.txt").read_text() == "1"
    assert Store(tmp_path).folder("float", {"b": "x", "a": 1}, build) == first
    assert build.built == 1


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {"a": 1, "b": None}, {}, {"a": (1,)}], ids=str)
def test_other_inputs_or_another_kind_are_another_folder(tmp_path: Path, other: dict[str, Any]) -> None:
    store, build = Store(tmp_path), Builder()
    folders = {store.folder("float", {"a": 1}, build), store.folder("float", other, build)}
    folders.add(store.folder("variant", {"a": 1}, build))
    assert len(folders) == build.built == 3


def test_another_version_of_a_tool_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder()
    Store(tmp_path).folder("float", {}, build)
    monkeypatch.setattr("pytest_mnnquant.cache.store.versions", lambda: {**versions(), "MNN": "99"})
    Store(tmp_path).folder("float", {}, build)
    assert build.built == 2


@pytest.mark.torch
def test_versions_name_the_tools_that_make_artifacts() -> None:
    assert set(versions()) == {"pytest-mnnquant", "MNN", "torch", "numpy", "mnncompress"}
    assert all(version for name, version in versions().items() if name != "mnncompress")


def test_one_run_makes_everything_anew_once_and_the_next_drops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Builder()
    monkeypatch.setattr("pytest_mnnquant.cache.store._STARTING", -1.0)
    monkeypatch.delenv("PYTEST_XDIST_TESTRUNUID", raising=False)
    with run_folder(tmp_path) as root:
        made = [Store(root).folder("float", {}, build) for _ in range(3)]
        with run_folder(tmp_path) as other:
            assert (Store(other).folder("float", {}, build) / "made.txt").read_text() == "2"
        assert {(folder / "made.txt").read_text() for folder in made} == {"1"}
    assert {made[0].exists(), other.exists()} == {True}
    with run_folder(tmp_path) as third:
        assert list(tmp_path.iterdir()) == [third]


def test_the_workers_of_one_run_share_what_it_makes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", "one")
    with run_folder(tmp_path) as first, run_folder(tmp_path) as second:
        assert first == second


def test_fresh_replaces_what_is_there(tmp_path: Path) -> None:
    store, build = Store(tmp_path), Builder()
    store.folder("float", {}, build)
    assert (store.folder("float", {}, build, fresh=True) / "made.txt").read_text() == "2"
    assert contents(tmp_path) == ["made.txt"]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_failed_build_leaves_nothing_behind_and_is_tried_again(tmp_path: Path, fresh: bool) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    if fresh:
        store.folder("float", {}, Builder())
    with pytest.raises(KeyboardInterrupt):
        store.folder("float", {}, fail, fresh=fresh)
    assert contents(tmp_path) == (["made.txt"] if fresh else [])
    assert [path for path in (tmp_path / "float").iterdir() if path.name.startswith("unfinished")] == []
    assert (store.folder("float", {}, Builder()) / "made.txt").exists()


def test_what_another_machine_made_meanwhile_is_used(tmp_path: Path) -> None:
    """Its locks are not seen here."""
    final = Store(tmp_path).folder("float", {}, Builder())
    elsewhere = final.rename(tmp_path / "elsewhere")

    def lose(folder: Path) -> None:
        (folder / "who.txt").write_text("loser")
        elsewhere.rename(final)

    assert Store(tmp_path).folder("float", {}, lose, fresh=False) == final
    assert contents(tmp_path) == ["made.txt"]


PROCESS = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from pytest_mnnquant.cache.store import Store

    def build(folder):
        with open(sys.argv[1] + "/built", "a") as told:
            told.write(f"{turn}\\n")
        for number in range(40):
            (folder / f"{number}.txt").write_text(sys.argv[2])
            time.sleep(0.002)

    for turn in range(3):
        made = Store(Path(sys.argv[1])).folder("float", {"turn": turn}, build)
        writers = {path.read_text() for path in made.glob("*.txt")}
        assert len(writers) == 1 and len(list(made.glob("*.txt"))) == 40, (writers, made)
""")


@pytest.mark.slow
def test_processes_that_want_the_same_at_the_same_time_build_it_once(tmp_path: Path) -> None:
    """As xdist's workers do. A watcher looks at every folder that has appeared: it must be whole at once."""
    torn: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            made = tmp_path.glob("float/[0-9a-f]*")
            torn.extend(folder.name for folder in made if len(list(folder.glob("*.txt"))) != 40)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, str(tmp_path), str(number)], stderr=subprocess.PIPE, text=True
            )
            for number in range(4)
        ]
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        stop.set()
        watcher.join()
    assert [(process.returncode, error) for process, error in zip(processes, errors, strict=True)] == [(0, "")] * 4
    assert torn == []
    assert len(list((tmp_path / "float").iterdir())) == 3
    assert sorted((tmp_path / "built").read_text().split()) == ["0", "1", "2"]


def test_a_files_digest_is_sha_256_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_private_folder_belongs_to_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, build = Store(tmp_path), Builder()
    made = store.folder("kind", {"a": 1}, build, private=True)
    assert store.folder("kind", {"a": 1}, build, private=True) == made
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", "another")
    other = store.folder("kind", {"a": 1}, build, private=True)
    assert other != made
    old = time.time() - 2 * 86_400
    os.utime(made, (old, old))
    assert store.folder("kind", {"b": 2}, build, private=True).exists()
    assert (made.exists(), other.exists()) == (False, True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def replace_with_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["made.txt", MANIFEST])
@pytest.mark.parametrize("spoil", [cut, flip, Path.unlink, replace_with_folder])
def test_a_damaged_entry_is_built_again_and_reported(tmp_path: Path, name: str, spoil: Callable[[Path], None]) -> None:
    build = Builder()
    spoil(Store(tmp_path).folder("float", {}, build) / name)
    store = Store(tmp_path)
    made = store.folder("float", {}, build)
    assert ((made / "made.txt").read_text(), len(store.repaired)) == ("2", 1)
    assert made.name in store.repaired[0]
    assert Store(tmp_path).folder("float", {}, build) == made
    assert build.built == 2


def test_an_entry_that_became_a_file_is_built_again(tmp_path: Path) -> None:
    build = Builder()
    final = Store(tmp_path).folder("float", {}, build)
    final.rename(tmp_path / "away")
    final.write_text("")
    assert (Store(tmp_path).folder("float", {}, build) / "made.txt").read_text() == "2"


def test_files_added_later_are_no_damage(tmp_path: Path) -> None:
    build = Builder()
    (Store(tmp_path).folder("float", {}, build) / "more.txt").write_text("x")
    Store(tmp_path).folder("float", {}, build)
    assert build.built == 1


def test_an_entry_that_vanishes_during_a_run_is_built_again(tmp_path: Path) -> None:
    store, build = Store(tmp_path), Builder()
    shutil.rmtree(store.folder("float", {}, build))
    assert store.folder("float", {}, build).is_dir()
    assert build.built == 2


def test_a_damaged_entry_that_can_not_be_removed_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one of another user."""
    flip(Store(tmp_path).folder("float", {}, Builder()) / "made.txt")
    monkeypatch.setattr("pytest_mnnquant.cache.store._remove", lambda _path: None)
    with pytest.raises(OSError):
        Store(tmp_path).folder("float", {}, Builder())


def test_old_locks_of_entries_that_are_gone_are_removed_at_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entries = [store.folder("kind", {"number": number}, Builder()) for number in range(3)]
    places = [tmp_path / "locks" / "kind" / entry.name for entry in entries]
    shutil.rmtree(entries[0])
    shutil.rmtree(entries[1])
    for place in places[1:]:
        os.utime(place, (0, 0))
    Store(tmp_path)
    assert [place.exists() for place in places] == [True, False, True]
    assert store.folder("kind", {"number": 1}, Builder()).is_dir()
