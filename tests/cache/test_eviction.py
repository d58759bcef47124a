"""The size of stored entries is bounded; what was not used for longest goes first."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_mnnquant.cache.eviction import evict, mark_used
from pytest_mnnquant.cache.manifest import MANIFEST, write_manifest


def entry(folder: Path, name: str, size: int, used: int) -> Path:
    made = folder / name
    made.mkdir()
    (made / "array.npy").write_bytes(bytes(size))
    write_manifest(made)
    os.utime(made / MANIFEST, (used, used))
    return made


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_least_recently_used_entries_are_deleted(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        entry(tmp_path, name, 1000, used=number)
    mark_used(tmp_path / "a")
    evict(tmp_path, 2500)
    assert left(tmp_path) == ["a", "d"]


def test_entries_within_the_limit_stay(tmp_path: Path) -> None:
    entry(tmp_path, "a", 1000, used=1)
    evict(tmp_path, 5000)
    assert left(tmp_path) == ["a"]


def test_an_entry_that_is_being_written_stays(tmp_path: Path) -> None:
    (tmp_path / "unfinished-x").mkdir()
    (tmp_path / "unfinished-x" / "array.npy").write_bytes(bytes(9000))
    evict(tmp_path, 0)
    assert left(tmp_path) == ["unfinished-x"]
