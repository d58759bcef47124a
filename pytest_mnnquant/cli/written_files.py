"""Which files of an export a program wrote: an older export in the same folder must not count as its result."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pytest_mnnquant.llm.config import CONFIG, MODEL_CONFIG, merge_config
from pytest_mnnquant.llm.json_object import BadExport, JsonObject, read_json


class FileState(NamedTuple):
    """What changes if a file is written or replaced; times in nanoseconds."""

    inode: int
    size: int
    modified: int
    changed: int


def file_states(folder: Path) -> dict[str, FileState]:
    """The states of the files in a folder by their paths in it; empty if the folder is missing."""
    states = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                states[path.relative_to(folder).as_posix()] = _state(path)
    return states


def unwritten_files(folder: Path, before: Mapping[str, FileState]) -> list[str]:
    """The graph and the weights of an export, if they are as they were before.

    They are compared by inode, size and times, not by content: the same export may be written again.
    """
    names = _graph_files(folder)
    return [name for name in names if name in before and before[name] == _state(folder / name)]


def _state(path: Path) -> FileState:
    status = path.stat()
    return FileState(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _graph_files(folder: Path) -> list[str]:
    """The existing graph and weights that the configuration names; it may be damaged, which the gate reports."""
    names = {"llm.mnn", "llm.mnn.weight"}
    with contextlib.suppress(BadExport, OSError):
        config = merge_config(*(_json(folder, name) for name in (CONFIG, MODEL_CONFIG)))
        names = {config.file("llm_model"), config.file("llm_weight")}
    return sorted(name for name in names if name and (folder / name).is_file())


def _json(folder: Path, name: str) -> JsonObject:
    return read_json(folder / name, name) if (folder / name).is_file() else JsonObject(name, {})
