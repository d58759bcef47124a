"""Writes the baseline atomically, one process at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pytest_mnnquant.baseline.file import Baseline, as_text, read_baseline
from pytest_mnnquant.cache.atomic_write import write_whole
from pytest_mnnquant.cache.lock import locked

Summary = TypeVar("Summary")


def update_file(path: Path, change: Callable[[Baseline], tuple[Baseline, Summary]]) -> Summary:
    """Read the baseline (empty if the file is missing), change it and write it, while no other process does.

    Returns the summary that `change` returns. An unchanged file is not written. Raises `BadBaseline` for a file that
    can't be read, since its entries would be lost, and `OSError` if the file can't be written.
    """
    path = path.resolve()  # A symbolic link is followed, not replaced.
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        before = read_baseline(path) if os.path.lexists(path) else Baseline()
        after, summary = change(before)
        if after != before:
            write_whole(path, as_text(after).encode())
    return summary
