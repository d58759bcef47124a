"""An option: its names, its kind, and how its values are parsed, wherever they are given.

Loaded by every pytest run on a machine that has the plugin, so it imports and builds as little as it can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_mnnquant.findings.value_text import shown

# Linux allows paths of this many bytes; names and numbers are shorter.
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `kind` is str, float, int or bool; `many` collects repeated values; `choices` lists allowed ones.

    An option without `ini` exists on the command line only. The values of `is_path` options name files.
    `named` takes a number for all outputs, or NAME=NUMBER for one (repeatable; in TOML a table, with "*" for others).
    `pairs` takes NAME=NAME (repeatable; in TOML a table).
    """

    name: str
    help: str
    metavar: str = ""
    kind: type = str
    many: bool = False
    named: bool = False
    pairs: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    per_model: bool = True
    ini: bool = True

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--mnn-" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """The ini key, and pytest's own name for the value."""
        return "mnn_" + self.name

    def parse(self, value: Any, where: str) -> Any:
        """Turn text (or a TOML value) into the option's value. Raises `ValueError` naming `where`."""
        if self.named:
            return self._parse_named(value, where)
        if self.pairs:
            return _parse_pairs(value, where)
        if self.many:
            items = [value] if isinstance(value, str) else value
            if not isinstance(items, list | tuple):
                raise ValueError(f"{where}: {shown(value)} is not a list of strings")
            if not items and self.default != ():
                raise ValueError(f"{where}: the list is empty; give a value, or remove the key")
            return tuple(self.parse_item(item, where) for item in items)
        return self.parse_item(value, where)

    @property
    def repeats(self) -> bool:
        """Whether the option can be repeated on the command line."""
        return self.many or self.named or self.pairs

    @property
    def is_path(self) -> bool:
        """Whether a value names a file or folder, alone or with more around it (`NAME=file.py:callable`)."""
        return self.metavar in ("FILE", "DIR", "SPEC", "RECIPE", "METRIC")

    def parse_item(self, value: Any, where: str) -> Any:
        """Parse one value of a repeatable option of the command line. Raises `ValueError`."""
        if self.named:
            return self._parse_named(value, where)
        if self.pairs:
            return _parse_pairs(value, where)
        if self.kind is bool:
            return _bool(value, where)
        if self.kind in (int, float):
            return self._parse_number(value, where)
        return self._parse_text(value, where)

    def _parse_named(self, value: Any, where: str) -> float | dict[str, float]:
        if isinstance(value, Mapping) and value:
            return {name: self._parse_number(number, f"{where}: {shown(name)[1:-1]}") for name, number in value.items()}
        if value in ([], (), {}):
            raise ValueError(f"{where}: a number is missing")
        numbers: dict[str, float] = {}
        for item in value if isinstance(value, list | tuple) else [value]:
            name, _, number = item.rpartition("=") if isinstance(item, str) else ("", "", item)
            numbers[name or "*"] = self._parse_number(number, where)
        return numbers["*"] if set(numbers) == {"*"} else numbers

    def _parse_text(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{where}: {shown(value)} is not a string")
        if not value.strip():
            raise ValueError(f"{where}: the value is empty; give a value, or remove the option")
        if "\0" in value or len(value) > _LONGEST:
            fault = "contains a NUL character" if "\0" in value else f"has {len(value)} characters"
            raise ValueError(f"{where}: {shown(value)} {fault}; allowed: {_LONGEST} characters without NUL")
        if self.name == "recipe":
            _check_recipe(value, where)
        if self.choices and value not in self.choices:
            raise ValueError(f"{where}: unknown value {shown(value)}; choose from: {', '.join(self.choices)}")
        return value

    def _parse_number(self, value: Any, where: str) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isnan(number):
            raise ValueError(f"{where}: {shown(value)} is not a number") from None
        if self.kind is int and not number.is_integer():
            raise ValueError(f"{where}: {shown(value)} is not a whole number")
        if not self.low <= number <= self.high:
            bounds = f"{self.low:g} to {self.high:g}" if math.isfinite(self.high) else f"at least {self.low:g}"
            raise ValueError(f"{where}: {number:g} is out of range, allowed: {bounds}")
        return int(number) if self.kind is int else number


def _parse_pairs(value: Any, where: str) -> dict[str, str]:
    """{first: second} of FIRST=SECOND texts, or of a table. Raises `ValueError`."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    pairs = list(value.items()) if isinstance(value, Mapping) else [_pair(item, where) for item in items]
    if not pairs:
        raise ValueError(f"{where}: a pair of names is missing, as INPUT=OUTPUT")
    for first, second in pairs:
        if not isinstance(second, str) or not first.strip() or not second.strip():
            raise ValueError(f"{where}: {shown(first)} has no name of an output: {shown(second)}")
        if [name for name, _ in pairs].count(first) > 1:
            raise ValueError(f"{where}: {shown(first)} is given twice")
    return dict(pairs)


def _pair(item: Any, where: str) -> tuple[str, str]:
    first, equals, second = item.partition("=") if isinstance(item, str) else ("", "", "")
    if not equals:
        raise ValueError(f"{where}: {shown(item)} is not INPUT=OUTPUT")
    return first, second


def _bool(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{where}: {shown(value)} is not true or false")


def _check_recipe(name: str, where: str) -> None:
    from pytest_mnnquant.recipes.names import recipe_named  # Only if a recipe is given: it loads numpy.

    try:
        recipe_named(name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
