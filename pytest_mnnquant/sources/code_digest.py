"""A hash of the source code that a model consists of: its modules, and what they import inside the project.

Code of the standard library is left out. Installed packages count by their version.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

from pytest_mnnquant.sources.code_imports import imported_names, with_parents

#: The beginning of the names of modules that were imported by their path, which is the rest of the name.
IMPORTED: Final = "mnnquant_"
_PACKAGE: Final = Path(__file__).resolve().parents[1]
_STANDARD: Final = ("stdlib", "platstdlib")
_INSTALLED: Final = ("purelib", "platlib")


def code_digest(modules: Iterable[str]) -> str:
    """The digest for these loaded modules and those that they import, by name."""
    sources, packages = set(), set()
    pending, known = sorted(modules), set()
    while pending:
        name = pending.pop()
        if name in known or name not in sys.modules:
            continue
        known.add(name)
        module = sys.modules[name]
        if is_installed(module):
            packages.add(name.partition(".")[0])
        elif is_project(name):
            source = _source(module)
            sources.add((f"{without_folders(name, ())} {len(source)} ".encode(), source))
            pending += sorted(_imports(module, source))
    total = hashlib.sha256()
    for start, source in sorted(sources):
        total.update(start + source)
    for name in sorted(packages):
        total.update(f"{name} {_version(name)} ".encode())
    return total.hexdigest()


def is_project(name: str) -> bool:
    """Whether a loaded module is neither part of Python, nor installed, nor part of this package."""
    file = _file(sys.modules.get(name))
    others = (_PACKAGE, *_folders(_STANDARD), *_installations())
    return file is not None and not any(file.is_relative_to(folder) for folder in others)


def project_folders(modules: Iterable[str]) -> tuple[Path, ...]:
    """The working folder, and those from which these modules of the project are imported; the deepest first."""
    folders = {Path.cwd()}
    for name in set(modules):
        file = _file(sys.modules.get(name))
        if file and is_project(name):
            depth = 0 if name.startswith(IMPORTED) else name.count(".")
            folders.add(file.parents[min(depth + (file.name == "__init__.py"), len(file.parents) - 1)])
    folders |= {folder.resolve() for folder in folders}
    return tuple(sorted((path for path in folders if path != path.parent), key=lambda path: (-len(path.parts), path)))


def without_folders(text: str, folders: Iterable[Path]) -> str:
    """A text in which paths start at these folders, and modules that were imported by their path have their name."""
    for folder in map(str, folders):
        if folder in text:
            text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", "", text)
    if text.startswith(IMPORTED) and (file := _file(sys.modules.get(text))):
        return f"{IMPORTED}{file.name}"
    return text


def is_installed(module: ModuleType) -> bool:
    """Whether a module lies in a folder of installed packages."""
    file = _file(module)
    return file is not None and any(file.is_relative_to(folder) for folder in _installations())


def _file(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).absolute() if isinstance(file, str) else None


@cache
def _installations() -> tuple[Path, ...]:
    found = [*_folders(_INSTALLED), *map(Path, site.getsitepackages()), Path(site.getusersitepackages())]
    return tuple(dict.fromkeys(path for folder in found for path in (folder.absolute(), folder.resolve())))


@cache
def _folders(kinds: tuple[str, ...]) -> tuple[Path, ...]:
    """Folders of `sysconfig`, by their keys."""
    return tuple(Path(sysconfig.get_path(kind)).absolute() for kind in kinds)


def _source(module: ModuleType) -> bytes:
    """The bytes of a module's file; of one in an archive, what its loader returns."""
    file = _file(module)
    try:
        return file.read_bytes() if file else b""
    except OSError:
        read = getattr(module.__loader__, "get_source", None)
        return str(read(module.__name__) if read else "").encode()


def _imports(module: ModuleType, source: bytes) -> Iterator[str]:
    """The modules that a module may import; names of functions and classes are among them."""
    yield from with_parents(module.__name__.rpartition(".")[0])
    yield from imported_names(source, getattr(module, "__package__", None) or "")


def _version(package: str) -> str:
    version = getattr(sys.modules[package], "__version__", None)
    if isinstance(version, str):
        return version
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
