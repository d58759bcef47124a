"""Fields of parsed JSON, read strictly; errors name the wrong key."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


class BadField(ValueError):
    """A field has a wrong type or value: one line that starts with its key. `fix` is empty if it is the usual one."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """An object. Raises `BadField`."""
    if not isinstance(value, dict):
        raise BadField(f"{where}: is not an object of keys and values")
    return value


def known(fields: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Raises `BadField` for a key that is not one of these."""
    allowed = tuple(keys)
    for key in fields:
        if key not in allowed:
            raise BadField(f"{where}: unknown key {key!r}; known: {', '.join(allowed)}")


def required(fields: Mapping[str, Any], key: str, where: str) -> Any:
    """The value of a key. Raises `BadField` if it is missing."""
    if key not in fields:
        raise BadField(f"{where}: the key {key!r} is missing")
    return fields[key]


def text(fields: Mapping[str, Any], key: str, where: str) -> str:
    """A text; empty if the key is missing. Raises `BadField`."""
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise BadField(f"{where}.{key}: {value!r} is not text")
    return value


def texts(value: Any, where: str) -> dict[str, str]:
    """An object of texts. Raises `BadField`."""
    return {key: text(mapping(value, where), key, where) for key in mapping(value, where)}


def numbers(
    fields: Mapping[str, Any], keys: Iterable[str], where: str, *, whole: bool, low: float = -math.inf
) -> dict[str, Any]:
    """The numbers of these keys; None if one is missing or null. Raises `BadField`."""
    return {key: _number(fields.get(key), f"{where}.{key}", whole, low) for key in keys}


def _number(value: Any, where: str, whole: bool, low: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise BadField(f"{where}: {value!r} is not a {'whole number' if whole else 'number'}")
    try:
        real = float(value)
    except OverflowError:
        raise BadField(f"{where}: the number is too large") from None
    if real < low or not math.isfinite(real):
        raise BadField(f"{where}: {value} is out of range; allowed: at least {low:g}")
    return value if whole else real
