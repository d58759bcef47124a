"""Writes the baseline: as a whole or not at all, and one process after the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pytest_mnnquant.baseline.file import Baseline, as_text, read_baseline
from pytest_mnnquant.cache.atomic_write import write_whole
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
