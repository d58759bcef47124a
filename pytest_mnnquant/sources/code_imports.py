"""The names of modules that Python source imports, anywhere in it: also inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

# Functions that import a module by its name, given as a text.
_BY_NAME: Final = ("import_module", "__import__")


def imported_names(source: bytes, package: str) -> Iterator[str]:
    """Full names of what the source of a module in `package` may import, each after the packages around it.

    Names of functions and classes are among them. Nothing for source that can't be parsed.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join(part for part in (*base, node.module or "") if part)
            yield from with_parents(start)
            yield from (f"{start}.{alias.name}" for alias in node.names if start)
        elif isinstance(node, ast.Call):
            yield from with_parents(_named(node))


def with_parents(name: str) -> Iterator[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`."""
    parts = name.split(".") if name else []
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def _named(call: ast.Call) -> str:
    """The module that a call such as `importlib.import_module("a.b")` imports; empty for other calls."""
    function = call.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    given = call.args[0] if call.args else None
    if name not in _BY_NAME or not isinstance(given, ast.Constant) or not isinstance(given.value, str):
        return ""
    return given.value if all(part.isidentifier() for part in given.value.split(".")) else ""
