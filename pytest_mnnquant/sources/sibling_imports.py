"""Modules of one name in the folders of several models: Python loads only one of them.

The folder of each imported file is appended to `sys.path`, and a module is loaded once by its name. The `blocks` that
`b/net.py` imports would therefore be `a/blocks.py` if `a/net.py` was imported earlier: another network than the user's
would be judged. Modules that come from the user's own `sys.path` or from installed packages are Python's usual order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

from pytest_mnnquant.sources.code_imports import imported_names, with_parents

# Words of source that reads files beside itself.
_OF_THE_FOLDER: Final = (b"__file__", b"__path__", b"__spec__", b"__loader__", b"resources", b"pkgutil", b"inspect")
# The folders that are in `sys.path` only because a file was imported by its path.
_APPENDED: dict[str, None] = {}


@dataclass(frozen=True, slots=True)
class Clash:
    """The module `name`, of which the file `wanted` lies beside the importing file; Python takes `loaded` instead."""

    name: str
    wanted: Path
    loaded: Path


def append_folder(folder: str) -> None:
    """Append a folder to `sys.path`, if it is not in it."""
    if folder not in sys.path:
        sys.path.append(folder)
        _APPENDED[folder] = None


def note_folders(before: Iterable[str]) -> list[str]:
    """Note the folders that an imported file has added to `sys.path` since `before`; returns them."""
    known = set(before)
    added = [folder for folder in sys.path if folder not in known]
    _APPENDED.update(dict.fromkeys(added))
    return added


def own_path() -> list[str]:
    """`sys.path` without the folders of imported files: the path of a new process that imports files by itself."""
    return [place for place in sys.path if place not in _APPENDED]


def clash_of_file(file: Path, folders: Sequence[str]) -> Clash | None:
    """The first module that Python takes from the folder of another imported file, of those that this file imports.

    `folders` are those from which the file takes its own modules; these are followed. None if every import is its own.
    """
    return _first_clash(imported_names(_content(file), ""), folders)


def clash_of_module(name: str, folders: Sequence[str]) -> Clash | None:
    """The same for a module that is imported by its name from one of these folders."""
    return _first_clash(with_parents(name), folders)


def _first_clash(names: Iterable[str], folders: Sequence[str]) -> Clash | None:
    pending, known = list(names), set[str]()
    while pending:
        name = pending.pop()
        wanted = None if name in known else _file_in(name, folders)
        known.add(name)
        if wanted is None:
            continue
        loaded = _taken(name)
        if loaded is not None and _root(name, loaded) in _appended() and not _is_same(wanted, loaded):
            return Clash(name, wanted, loaded)
        pending += imported_names(_content(wanted), name if wanted.name == "__init__.py" else name.rpartition(".")[0])
    return None


def _is_same(wanted: Path, loaded: Path) -> bool:
    """Whether two files define the same: they are one file, or copies that do not depend on their folder."""
    if wanted == loaded:
        return True
    content = _content(wanted)
    return bool(content) and content == _content(loaded) and not any(word in content for word in _OF_THE_FOLDER)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.suffix == ".py" else b""
    except OSError:
        return b""


def _appended() -> set[Path]:
    return {Path(folder).resolve() for folder in _APPENDED}


def _file_in(name: str, folders: Sequence[str]) -> Path | None:
    """The file of a module, searched from these folders on."""
    places: Sequence[str] | None = folders
    file = None
    for part in name.split("."):
        if places is None:
            return None
        file, places = _found(part, places)
    return file


def _taken(name: str) -> Path | None:
    """The file that `import name` gives in this process: of the loaded module, or the first on `sys.path`."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file).resolve() if isinstance(file, str) else None
    parent, _, last = name.rpartition(".")
    if not parent:
        return _found(last, sys.path)[0]
    if parent in sys.modules:
        return _found(last, list(getattr(sys.modules[parent], "__path__", ())))[0]
    return _file_in(name, sys.path)


def _found(part: str, places: Sequence[str]) -> tuple[Path | None, Sequence[str] | None]:
    """The file of a module in these folders, and the folders of a package; (None, None) if it is not there."""
    try:
        spec = PathFinder.find_spec(part, list(places))
    except (ImportError, OSError, ValueError, KeyError):
        return None, None
    if spec is None:
        return None, None
    inside = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return (Path(spec.origin).resolve() if spec.origin and spec.has_location else None), inside


def _root(name: str, file: Path) -> Path:
    """The folder from which the module `name` in this file is imported."""
    depth = name.count(".") + (file.name == "__init__.py")
    return file.parents[min(depth, len(file.parents) - 1)]
