"""The checksums of a folder of the cache: what was written is what is read, or it is built again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: Hidden, so that it does not count as one of the folder's files.
MANIFEST: Final = ".manifest.json"
_CHUNK: Final = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    return content_digest([path])


def content_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of files, one after the other, in hexadecimal."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    return total.hexdigest()


def write_manifest(folder: Path) -> None:
    """Write the size in bytes and the digest of each file in the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    entries = {path.relative_to(folder).as_posix(): [path.stat().st_size, file_digest(path)] for path in files}
    (folder / MANIFEST).write_text(json.dumps(entries), encoding="utf-8")


def file_names(folder: Path) -> list[str]:
    """The names of the files that were written into a folder. Raises `OSError` if its manifest is gone."""
    return list(json.loads((folder / MANIFEST).read_bytes()))


def damage(folder: Path) -> str:
    """What is wrong with the files of a folder, in a few words; empty if all are as they were written.

    Files that were added later are ignored.
    """
    try:
        entries = json.loads((folder / MANIFEST).read_bytes())
        for name, (size, digest) in entries.items():
            path = folder / name
            actual = path.stat().st_size
            if actual != size:
                return f"{name} has {actual} bytes, written were {size}"
            if file_digest(path) != digest:
                return f"the content of {name} changed"
    except OSError as error:
        return f"{Path(error.filename or folder).name} can't be read: {error.strerror}"
    except (ValueError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    return ""
