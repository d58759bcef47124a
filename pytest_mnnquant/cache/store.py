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
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.cache.lock import in_use, is_in_use, locked

_TOKEN: Final = secrets.token_hex(8)
# All workers of xdist belong to one run.
_RUN_ID: Final = "PYTEST_XDIST_TESTRUNUID"
_RUN: Final = "-run-"
_DAY: Final = 86_400.0  # seconds
# The longest time of a run between creating its folder and locking it.
_STARTING: Final = 10.0  # seconds
_CHUNK: Final = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def versions() -> dict[str, str]:
    """The versions that artifacts depend on; empty for packages that are not installed."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return ""

    return {name: version(name) for name in ("pytest-mnnquant", "MNN", "torch", "numpy", "mnncompress")}


class Store:
    """Folders named by the hash of their inputs."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

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
        text = json.dumps({"kind": kind, "versions": versions(), **inputs}, sort_keys=True, default=str)
        final = self.root / kind / _digest(text.encode())[:24]
        if private:
            final = _of_this_run(final)
        if final.is_dir() and not fresh:
            return final
        with self._locked(final):
            if not final.is_dir() or fresh:
                self._make(final, build, fresh)
        return final

    def _locked(self, final: Path) -> AbstractContextManager[None]:
        # The lock is on a second folder, since the folder itself is replaced.
        place = self.root / "locks" / final.parent.name / final.name
        place.mkdir(parents=True, exist_ok=True)
        return locked(place)

    def _make(self, final: Path, build: Callable[[Path], None], fresh: bool) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=final.parent))
        try:
            build(unfinished)
            if fresh:
                shutil.rmtree(final, ignore_errors=True)
            try:
                unfinished.replace(final)
            except OSError:  # Another machine, whose locks are invisible here, was faster; its folder is equally good.
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


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
