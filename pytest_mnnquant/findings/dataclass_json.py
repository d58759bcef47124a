"""Frozen dataclasses as values that JSON and xdist can carry, and back."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: Metadata of a field that is left out of the JSON form if it has its default value.
OPTIONAL: Final = {"optional": True}


def key(name: str) -> dict[str, str]:
    """Metadata of a field whose key in the JSON form is not its name, such as `from`, which Python reserves."""
    return {"key": name}


def as_json(value: Any) -> Any:
    """A dataclass as a dictionary in the order of its fields; tuples as lists, enums as values; all else unchanged."""
    if dataclasses.is_dataclass(value):
        return {name: as_json(item) for name, item in _items(value)}
    if isinstance(value, Mapping):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    return value.value if isinstance(value, enum.Enum) else value


def from_json(kind: Any, value: Any) -> Any:
    """The value of type `kind` whose JSON form this is. Raises `TypeError` if a field without default is missing."""
    if value is None:
        return None
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not types.NoneType]
        return from_json(inner[0], value) if len(inner) == 1 else value
    if origin is tuple:
        return tuple(from_json(arguments[0], item) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: from_json(arguments[1], item) for name, item in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        present = {field: (kind, value[name]) for field, name, kind in _fields(kind) if name in value}
        return kind(**{field: from_json(*item) for field, item in present.items()})
    return kind(value) if isinstance(kind, type) and issubclass(kind, enum.Enum) else value


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if not field.metadata.get("optional") or item != _default(field):
            yield field.metadata.get("key", field.name), item


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@functools.cache
def _fields(kind: type[Any]) -> tuple[tuple[str, str, Any], ...]:
    """Name, key and type of each field."""
    types_of = typing.get_type_hints(kind)
    return tuple(
        (field.name, field.metadata.get("key", field.name), types_of[field.name]) for field in dataclasses.fields(kind)
    )
