"""Artifacts stored by content, so that no work is done twice, in one run or in the next."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.cache.lock import in_use, is_in_use, locked
from pytest_mnnquant.cache.manifest import damage, write_manifest
from pytest_mnnquant.cache.temporary import remove_abandoned, temporary_prefix

# Of an entry: since 2, it holds checksums.
_FORMAT: Final = 2
_TOKEN: Final = secrets.token_hex(8)
# All workers of xdist belong to one run.
_RUN_ID: Final = "PYTEST_XDIST_TESTRUNUID"
_TOOLS: Final = ("pytest-mnnquant", "MNN", "torch", "numpy", "mnncompress")
# They write ONNX files.
_EXPORTERS: Final = ("onnx", "onnxscript", "onnx-ir")
_RUN: Final = "-run-"
_LOCKS: Final = "locks"
_DAY: Final = 86_400.0  # seconds
# The longest time of a run between creating its folder and locking it.
_STARTING: Final = 10.0  # seconds


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def versions() -> dict[str, str]:
    """The versions that decide what an artifact looks like; empty for what is not installed."""
    return {name: _version(name) for name in _TOOLS}


@cache
def _version(name: str) -> str:
    """Read once: a run asks for the versions many times, and each look reads a file of the package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


class Store:
    """Folders named by the hash of their inputs."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        for kind in self.root.glob("*/"):
            remove_abandoned(kind)
        self._remove_old_locks()
        #: Warnings, a line each: entries that were damaged and are built again.
        self.repaired: list[str] = []
        self._verified: set[Path] = set()

    def folder(
        self,
        kind: str,
        inputs: dict[str, Any],
        build: Callable[[Path], None],
        fresh: bool = False,
        private: bool = False,
    ) -> Path:
        """The folder for these inputs; if it is missing, `build(folder)` makes it, atomically.

        Processes with the same inputs (xdist's workers) wait for the one that builds it. `fresh` builds it again,
        `private` builds one for this run only. Exceptions of `build` pass through and leave nothing behind.
        """
        exporters = {name: _version(name) for name in _EXPORTERS}
        tools = {"format": _FORMAT, "versions": versions(), "exporters": exporters}
        text = json.dumps({"kind": kind, **tools, **inputs}, sort_keys=True, default=str)
        final = self.root / kind / _digest(text.encode())[:24]
        if private:
            final = _of_this_run(final)
        if not fresh and self._is_intact(final):
            return final
        with self._locked(final):
            if fresh or not self._is_intact(final, report=True):
                self._make(final, build, replace=fresh or final.exists())
        self._verified.add(final)
        return final

    def _is_intact(self, final: Path, report: bool = False) -> bool:
        """Whether the entry is there, and as it was written. With `report`, damage is noted in `repaired`."""
        if not final.exists():
            return False
        if final in self._verified and final.is_dir():
            return True
        wrong = damage(final) if final.is_dir() else "it is a file"
        if wrong and report:
            self.repaired.append(f"cache entry {final.parent.name}/{final.name} is damaged and is built again: {wrong}")
        if not wrong:
            self._verified.add(final)
        return not wrong

    def _locked(self, final: Path) -> AbstractContextManager[None]:
        # The lock is on a second folder, since the folder itself is replaced.
        place = self.root / _LOCKS / final.parent.name / final.name
        place.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # Another user's.
            os.utime(place)
        return locked(place)

    def _remove_old_locks(self) -> None:
        """Remove the locks of entries that are gone. A lock of this day may be about to be held."""
        for place in self.root.glob(f"{_LOCKS}/*/*"):
            with contextlib.suppress(OSError):  # Another process was faster.
                is_old = time.time() - place.stat().st_mtime > _DAY
                if is_old and not (self.root / place.parent.name / place.name).exists() and not is_in_use(place):
                    place.rmdir()

    def _make(self, final: Path, build: Callable[[Path], None], replace: bool) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=temporary_prefix("unfinished"), dir=final.parent))
        try:
            build(unfinished)
            write_manifest(unfinished)
            if replace:
                _remove(final)
            try:
                unfinished.replace(final)
            except OSError:  # Another machine, whose locks are invisible here, was faster; its folder is equally good.
                if not final.is_dir() or damage(final):
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def run_folder(root: Path) -> Iterator[Path]:
    """A folder in which this run builds everything again, once for all of xdist's workers.

    It stays after the run, since failures name files in it; the next run deletes the folders of ended runs.
    """
    folder = root / os.environ.get(_RUN_ID, secrets.token_hex(8))
    folder.mkdir(parents=True, exist_ok=True)
    with in_use(folder):
        for other in root.iterdir():
            if other != folder and time.time() - other.stat().st_mtime > _STARTING and not is_in_use(other):
                shutil.rmtree(other, ignore_errors=True)
        yield folder


def _of_this_run(final: Path) -> Path:
    """The folder's name in this run; folders of runs before today are deleted."""
    for other in final.parent.glob(f"*{_RUN}*"):
        if time.time() - other.stat().st_mtime > _DAY:
            shutil.rmtree(other, ignore_errors=True)
    return final.with_name(final.name + _RUN + os.environ.get(_RUN_ID, _TOKEN))
