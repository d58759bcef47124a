"""Replaces files atomically: if the process is killed, the file is either the old or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file atomically: readers see the old or the new content. Raises `OSError`.

    The unfinished file always has the same name, so that killed processes leave at most one behind.
    """
    if is_read_only(path):
        raise PermissionError(errno.EACCES, "it is read-only", str(path))
    mode = path.stat().st_mode if path.exists() else None
    with replacement(path) as unfinished:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            unfinished.chmod(stat.S_IMODE(mode))
    _sync(path.parent)


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Within this context, write the new content of `path` to the yielded file, which replaces it at the end.

    After an exception `path` is as before, and the yielded file is gone. Raises `OSError`.
    """
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.unlink(missing_ok=True)
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def is_read_only(path: Path) -> bool:
    """Whether the file exists and is read-only.

    The folder's permissions decide whether a file can be replaced, but a read-only file must not be changed.
    """
    return path.exists() and not (path.stat().st_mode & stat.S_IWUSR and os.access(path, os.W_OK))


def _sync(folder: Path) -> None:
    """Flush the new name to the disk, if the file system supports it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
