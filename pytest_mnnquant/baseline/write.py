"""Writes the baseline: as a whole or not at all, and one process after the other."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pytest_mnnquant.baseline.file import Baseline, as_text, read_baseline
from pytest_mnnquant.cache.lock import locked

Told = TypeVar("Told")


def update_file(path: Path, change: Callable[[Baseline], tuple[Baseline, Told]]) -> Told:
    """Read the baseline (empty where there is no file), change it and write it, with no other process in between.

    Returns what `change` tells of it. A file that would stay as it is is not written. Raises `BadBaseline` for a file
    that can't be read, since its entries would be lost, and `OSError` where it can't be written.
    """
    path = path.resolve()  # A link stays one.
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        before = read_baseline(path) if os.path.lexists(path) else Baseline()
        after, told = change(before)
        if after != before:
            write_whole(path, as_text(after).encode())
    return told


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file: whoever reads it, and whatever happens, it is the old one or the new one. Raises `OSError`.

    The unfinished file has one name, so that a process that was killed leaves no more than one behind.
    """
    if is_read_only(path):
        raise PermissionError(errno.EACCES, "it is read-only", str(path))
    mode = path.stat().st_mode if path.exists() else None
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.unlink(missing_ok=True)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            unfinished.chmod(stat.S_IMODE(mode))
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def is_read_only(path: Path) -> bool:
    """Whether there is a file that may not be written.

    The folder decides whether a file can be replaced; but who made the file read-only does not want that.
    """
    return path.exists() and not (path.stat().st_mode & stat.S_IWUSR and os.access(path, os.W_OK))


def _sync(folder: Path) -> None:
    """Have the new name on the disk too, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
