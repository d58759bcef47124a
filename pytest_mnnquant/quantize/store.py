"""Artifacts kept by content: the same work is not done twice, in one run or in the next."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file.read())
        )


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

        `fresh` makes it anew even so. `private` makes one for this process alone, and drops those of processes that
        have ended. Exceptions of `build` pass through and leave nothing behind.
        """
        text = json.dumps({"kind": kind, "versions": versions(), **inputs}, sort_keys=True, default=str)
        final = self.root / kind / _digest(text.encode())[:24]
        if private:
            final = _private(final)
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


def _private(final: Path) -> Path:
    for other in final.parent.glob(f"{final.name}-*"):
        if not _is_alive(int(other.name.rpartition("-")[2])):
            shutil.rmtree(other, ignore_errors=True)
    return final.with_name(f"{final.name}-{os.getpid()}")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # Another user's.
        pass
    return True
