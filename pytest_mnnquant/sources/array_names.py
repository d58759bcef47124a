"""The names of the arrays that data hold, read before the data are loaded: they decide which inputs a model gets."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_mnnquant.sources.spec import seeded_generators
from pytest_mnnquant.sources.user_code import contained


def array_names(data: Sequence[Any], root: Path) -> tuple[str, ...]:
    """The names that all of these data have, in the order of the first; empty if they have none, or can't be known.

    Data are a `.npz`, a folder of them, a dictionary, or batches that can be iterated again. None is left out.
    """
    named = [tuple(_names(value, root)) for value in data if value is not None]
    first = named[0] if named else ()
    return tuple(name for name in first if all(name in names for names in named))


def _names(value: Any, root: Path) -> Iterator[str]:
    if isinstance(value, str):
        yield from _names_in_file(root / value)
    elif isinstance(value, Mapping):
        yield from map(str, value)
    elif isinstance(value, tuple | list) and value:
        yield from _names(value[0], root)
    elif (first := _first(value)) is not None:
        yield from _names(first, root)


def _first(value: Any) -> Any:
    """The first item of what can be iterated again; None if it can't be made: reading the data reports why."""
    try:
        with contained(), seeded_generators(""):
            is_repeatable = hasattr(value, "__iter__") and not hasattr(value, "shape") and iter(value) is not value
            return next(iter(value), None) if is_repeatable else None
    except Exception:
        return None


def _names_in_file(path: Path) -> Iterator[str]:
    if path.is_dir():
        path = min(path.glob("*.npz"), default=path)
    if not path.is_file():  # A pipe has no end: reading the data refuses it.
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield from (name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return
