"""Bounds the size of a kind of cache entries: the least recently used are deleted first."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from pytest_mnnquant.cache.manifest import MANIFEST
from pytest_mnnquant.cache.temporary import temporary_prefix


def mark_used(entry: Path) -> None:
    """Note that an entry was used now. Raises `OSError` if it is gone."""
    os.utime(entry / MANIFEST)


def evict(folder: Path, limit: int) -> None:
    """Delete entries of a folder until the others have at most `limit` bytes.

    Entries that are being written or deleted stay. Other processes may do the same at the same time.
    """
    entries = []
    for entry in folder.iterdir():
        if entry.name.startswith("unfinished-"):
            continue
        with contextlib.suppress(OSError):  # Another process deleted it.
            entries.append(((entry / MANIFEST).stat().st_mtime_ns, _size(entry), entry))
    size = sum(entry[1] for entry in entries)
    for _, freed, entry in sorted(entries):
        if size <= limit:
            return
        _delete(entry)
        size -= freed


def _delete(entry: Path) -> None:
    """Delete an entry at once for others: they find all of it or nothing."""
    away = entry.with_name(temporary_prefix("unfinished") + entry.name)
    with contextlib.suppress(OSError):  # Another process was faster.
        entry.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def _size(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.iterdir())
