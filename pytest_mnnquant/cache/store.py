"""Artifacts kept by content: the same work is not done twice, in one run or in the next."""

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
# The workers of xdist are one run.
_RUN_ID: Final = "PYTEST_XDIST_TESTRUNUID"
_RUN: Final = "-run-"
_DAY: Final = 86_400.0  # seconds
# A run takes less between making its folder and telling that it uses it.
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
    """The versions that decide what an artifact looks like; empty for what is not installed."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return ""

    return {name: version(name) for name in ("pytest-mnnquant", "MNN", "torch", "numpy", "mnncompress")}


class Store:
    """Folders named by the hash of what went into them."""

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
        """The folder for these inputs, made by `build(folder)` unless it is there. It appears whole or not at all.

        Processes that want the same (xdist's workers) wait for the one that makes it. `fresh` makes it anew even so.
        `private` makes one for this run alone. Exceptions of `build` pass through and leave nothing behind.
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
        # Locked is a folder beside it, since the folder itself is replaced.
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
            except OSError:  # On another machine, whose locks are not seen here, it was made first, and is as good.
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def run_folder(root: Path) -> Iterator[Path]:
    """A folder in which this run makes everything anew, once for all of xdist's workers.

    It stays when the run has ended, since failures name files in it; the next run drops what ended runs left.
    """
    folder = root / os.environ.get(_RUN_ID, secrets.token_hex(8))
    folder.mkdir(parents=True, exist_ok=True)
    with in_use(folder):
        for other in root.iterdir():
            if other != folder and time.time() - other.stat().st_mtime > _STARTING and not is_in_use(other):
                shutil.rmtree(other, ignore_errors=True)
        yield folder


def _of_this_run(final: Path) -> Path:
    """The folder's name in this run; what runs of yesterday and before left is dropped."""
    for other in final.parent.glob(f"*{_RUN}*"):
        if time.time() - other.stat().st_mtime > _DAY:
            shutil.rmtree(other, ignore_errors=True)
    return final.with_name(final.name + _RUN + os.environ.get(_RUN_ID, _TOKEN))
