"""A JSON file whose values are read by key and type. What is malformed is one line with the file and the key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import BadModel

#: No configuration or tokenizer is larger (bytes).
_LARGEST: Final = 1 << 28


class BadExport(BadModel):
    """A file of an export or a checkpoint can't be used: the file, the key or place in it, and the problem."""

    def __init__(self, file: str, key: str, problem: str) -> None:
        self.file, self.key, self.problem = file, key, problem
        super().__init__(": ".join(part for part in (file, key, problem) if part))


@dataclass(frozen=True)
class JsonObject:
    """An object of a JSON file. `file` names the file in messages, `prefix` the place of this object in it."""

    file: str
    values: Mapping[str, object]
    prefix: str = ""

    def fault(self, key: str, problem: str) -> BadExport:
        """What to raise if the value of a key can't be used."""
        return BadExport(self.file, self.prefix + key, problem)

    def has(self, key: str) -> bool:
        """Whether the key is present, and not null."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """A string; the default for a missing key or null. Raises `BadExport` for another type."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.fault(key, f"a string is expected, not {_short(value)}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number of at most 63 bits. Raises `BadExport`, also for a missing key without default."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
            problem = "it is missing" if value is None else f"a whole number is expected, not {_short(value)}"
            raise self.fault(key, problem)
        return value

    def number(self, key: str, default: float) -> float:
        """A number; the default for a missing key or null. Raises `BadExport` for another type."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
            raise self.fault(key, f"a number is expected, not {_short(value)}")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false; the default for a missing key or null. Raises `BadExport` for another type."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fault(key, f"true or false is expected, not {_short(value)}")
        return value

    def member(self, key: str) -> JsonObject:
        """An object; an empty one for a missing key or null. Raises `BadExport` for another type."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.fault(key, f"an object is expected, not {_short(value)}")
        return JsonObject(self.file, {} if value is None else value, f"{self.prefix}{key}.")

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty for a missing key or null. Raises `BadExport` for another type."""
        items = self.array(key)
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int) or abs(item) >= 1 << 63:
                raise self.fault(key, f"a list of whole numbers is expected, not of {_short(item)}")
        return tuple(item for item in items if isinstance(item, int))

    def array(self, key: str) -> tuple[object, ...]:
        """A list; empty for a missing key or null. Raises `BadExport` for another type."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, list):
            raise self.fault(key, f"a list is expected, not {_short(value)}")
        return () if value is None else tuple(value)

    def objects(self, key: str) -> Iterator[JsonObject]:
        """The objects of a list. Raises `BadExport` for another type."""
        for number, item in enumerate(self.array(key)):
            if not isinstance(item, dict):
                raise self.fault(f"{key}[{number}]", f"an object is expected, not {_short(item)}")
            yield JsonObject(self.file, item, f"{self.prefix}{key}[{number}].")


def read_json(path: Path, file: str = "") -> JsonObject:
    """The object that a JSON file holds; `file` is its name in messages. Raises `BadExport`, `OSError`."""
    if path.stat().st_size > _LARGEST:
        raise BadExport(file or str(path), "", f"{path.stat().st_size:,} bytes are too many for a JSON file")
    return parse_json(path.read_bytes(), file or str(path))


def parse_json(data: bytes, file: str) -> JsonObject:
    """The object that JSON text holds; `file` is the name in messages. Raises `BadExport`.

    A key that an object has twice is a fault: readers do not agree on the value that counts.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadExport(file, "", f"it is not JSON ({_first_line(error)})") from None
    if not isinstance(value, dict):
        raise BadExport(file, "", f"a JSON object is expected, not {_short(value)}")
    return JsonObject(file, value)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return values


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:100]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
