"""Files that Git LFS has not downloaded: a text of three lines stands in for the content."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_START: Final = b"version https://git-lfs.github.com/spec/"
_LARGEST: Final = 1024
FIX: Final = "git lfs pull"
PROBLEM: Final = "it is a pointer of Git LFS, not the file itself: run git lfs pull"


def is_pointer(path: Path) -> bool:
    """Whether a file is a pointer of Git LFS. Raises `OSError`."""
    if path.stat().st_size > _LARGEST:
        return False
    with path.open("rb") as file:
        return file.read(len(_START)) == _START
