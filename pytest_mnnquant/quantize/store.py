"""Artifacts kept by content: the same work is not done twice, in one run or in the next."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_TOKEN: Final = secrets.token_hex(8)
_RUN: Final = "-run-"
_DAY: Final = 86_400.0  # seconds
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

    def __init__(self, root: Path, reuse: bool = True) -> None:
        """`reuse=False` makes everything anew."""
        self.root = root.resolve()
        self.reuse = reuse
        self._made: set[Path] = set()

    def folder(
        self,
        kind: str,
        inputs: dict[str, Any],
        build: Callable[[Path], None],
        fresh: bool = False,
        private: bool = False,
    ) -> Path:
        """The folder for these inputs, made by `build(folder)` unless it is there. It appears whole or not at all.

        `fresh` makes it anew even so. `private` makes one for this run alone. Exceptions of `build` pass through and
        leave nothing behind.
        """
        text = json.dumps({"kind": kind, "versions": versions(), **inputs}, sort_keys=True, default=str)
        final = self.root / kind / _digest(text.encode())[:24]
        if private:
            final = _of_this_run(final)
        if final.is_dir() and not fresh and (self.reuse or final in self._made):
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=final.parent))
        try:
            build(unfinished)
            if final.is_dir() and (fresh or not self.reuse):
                shutil.rmtree(final, ignore_errors=True)
            try:
                unfinished.replace(final)
            except OSError:  # Another process finished the same work first; its result is as good.
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._made.add(final)
        return final


def _of_this_run(final: Path) -> Path:
    """The folder's name in this run; what runs of yesterday and before left is dropped."""
    for other in final.parent.glob(f"*{_RUN}*"):
        if time.time() - other.stat().st_mtime > _DAY:
            shutil.rmtree(other, ignore_errors=True)
    # The workers of xdist are one run.
    return final.with_name(final.name + _RUN + os.environ.get("PYTEST_XDIST_TESTRUNUID", _TOKEN))
