"""Bounds the size of a kind of cache entries: the least recently used are deleted first."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from pytest_mnnquant.cache.manifest import MANIFEST


def mark_used(entry: Path) -> None:
    """Note that an entry was used now. Raises `OSError` if it is gone."""
    os.utime(entry / MANIFEST)


def evict(folder: Path, limit: int) -> None:
    """Delete entries of a folder until the others have at most `limit` bytes.

    Entries without a manifest are being written, and stay. Other processes may do the same at the same time.
    """
    entries = []
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # Another process deleted it.
            entries.append(((entry / MANIFEST).stat().st_mtime_ns, _size(entry), entry))
    size = sum(entry[1] for entry in entries)
    for _, freed, entry in sorted(entries):
        if size <= limit:
            return
        shutil.rmtree(entry, ignore_errors=True)
        size -= freed


def _size(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.iterdir())
