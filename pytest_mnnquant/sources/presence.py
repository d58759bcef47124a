"""Whether a source still defines its callable, read from its text: nothing is imported."""

from __future__ import annotations

import ast
import symtable
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

# A file that uses these may define any name when it runs.
_AT_RUN_TIME: Final = ("globals", "exec")


def reason_missing(source: str, folder: Path) -> str:
    """Why the callable of `file.py:callable` or `package.module:callable` is missing; empty if it may exist.

    Files start at `folder`. Modules are searched on Python's path. A module whose package is not found there, or that
    is not Python source, may exist.
    """
    place, _, name = source.rpartition(":")
    if place.endswith(".py"):
        file: Path | None = folder / place
    elif place:
        file, is_gone = _file_of(place)
        if is_gone:
            return f"its source {place} is missing"
    else:
        return ""
    return "" if file is None or _may_define(file, name) else f"its source {place} no longer defines {name}"


def _file_of(module: str) -> tuple[Path | None, bool]:
    """(the module's file, whether it certainly has none)."""
    parts = module.split(".")
    places: list[str] | None = [*sys.path, str(Path.cwd())]
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), places)
        if spec is None:
            return None, count > 1
        places = spec.submodule_search_locations
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None, False


def _may_define(file: Path, name: str) -> bool:
    try:
        text = file.read_bytes()
        tree = ast.parse(text)
        module = symtable.symtable(text, str(file), "exec")  # type: ignore[arg-type]
    except (OSError, SyntaxError, ValueError, RecursionError):
        return True
    nodes = list(ast.walk(tree))
    if any(isinstance(node, ast.Name) and node.id in _AT_RUN_TIME for node in nodes):
        return True
    if any(isinstance(node, ast.alias) and node.name == "*" for node in nodes):
        return True
    if any(isinstance(node, ast.Global) and name in node.names for node in nodes):
        return True
    names = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    return not names.isdisjoint((name, "__getattr__"))
