"""Reads the [tool.mnnquant] table of a TOML file; errors name the key at fault."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.config.options import BY_NAME, OPTIONS, PLURALS
from pytest_mnnquant.findings.value_text import shown
from pytest_mnnquant.sources.folders import parse_preparation
from pytest_mnnquant.sources.spec import LONGEST_NAME, is_printable
from pytest_mnnquant.targets.parse import Table, table_target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SHARED_KEYS: Final = ("models", "targets", "preprocess")
_MODEL_KEYS: Final = ("source", "preprocess")


@dataclass(frozen=True)
class ConfiguredModel:
    """A model of a configuration file: its source, and the values of its options by name."""

    name: str
    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class ConfigurationFile:
    """The [tool.mnnquant] table of a file in `folder`, where its relative paths start; empty if there is none.

    `shared` are the values of options that hold for all models, by name. `models` and `targets` are tables by name.
    """

    folder: Path
    shared: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Table] = field(default_factory=dict)
    targets: Mapping[str, Table] = field(default_factory=dict)

    def model(self, name: str) -> ConfiguredModel:
        """One of `models`. Raises `ValueError` for an unknown key or a bad value."""
        table, where = self.models[name], f"[tool.mnnquant.models.{name}]"
        if "source" not in table:
            raise ValueError(f"{where}: the key 'source' is missing")
        source = BY_NAME["model"].parse_item(table["source"], f"{where}: source")
        return ConfiguredModel(name, source, {**self.shared, **_values(table, where, _MODEL_KEYS)})


def read_configuration(path: Path) -> ConfigurationFile:
    """Read an existing file. Raises `ValueError`."""
    table, folder = _mnnquant_table(path), path.parent
    shared = _values(table, "[tool.mnnquant]", _SHARED_KEYS)
    models = _tables(table, "models", f"{path}: [tool.mnnquant.models] must hold one table per model")
    for name in models:
        if not is_printable(name) or "::" in name or not 0 < len(name) <= LONGEST_NAME:
            rule = f"a name has up to {LONGEST_NAME} printable characters, without '::'"
            raise ValueError(f"{path}: [tool.mnnquant.models]: {shown(name)} is not the name of a model: {rule}")
    return ConfigurationFile(folder, shared, models, _target_tables(table, path))


def read_targets(path: Path) -> Mapping[str, Table]:
    """The tables [tool.mnnquant.targets.NAME] of a file by name; none if the file is missing. Raises `ValueError`."""
    return _target_tables(_mnnquant_table(path), path) if path.is_file() else {}


def _mnnquant_table(path: Path) -> Table:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path}: it is nested too deeply") from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError as error:  # Of TOML, of UTF-8, and of integers with thousands of digits.
        raise ValueError(f"{path}: {error}") from None
    tools = content.get("tool", {})
    table = tools.get("mnnquant", {}) if isinstance(tools, dict) else tools
    if not isinstance(table, dict):
        raise ValueError(f"{path}: [tool.mnnquant] is not a table")
    return table


def _target_tables(table: Table, path: Path) -> Mapping[str, Table]:
    targets = _tables(table, "targets", f"{path}: [tool.mnnquant.targets] must hold one table per target")
    for name, entry in targets.items():
        table_target(name, entry)
    return targets


def _tables(table: Table, key: str, problem: str) -> Mapping[str, Table]:
    tables = table.get(key, {})
    if not isinstance(tables, dict) or not all(isinstance(entry, dict) for entry in tables.values()):
        raise ValueError(problem)
    return tables


def _values(table: Table, where: str, extra: tuple[str, ...]) -> dict[str, Any]:
    values = table_values(table, where, extra)
    if "preprocess" in table:
        values["preprocess"] = parse_preparation(table["preprocess"], f"{where}: preprocess")
    return values


def table_values(table: Table, where: str, extra: tuple[str, ...]) -> dict[str, Any]:
    """The options in a TOML table, by name, without the `extra` keys. Raises `ValueError` that names the key."""
    values = {}
    for key, value in table.items():
        if key in extra:
            continue
        name = PLURALS.get(key, key)
        if name not in BY_NAME or not BY_NAME[name].per_model:
            known = sorted({*extra, *(option.name for option in OPTIONS if option.per_model), *PLURALS})
            raise ValueError(f"{where}: unknown key {key!r}; known: {', '.join(known)}")
        values[name] = BY_NAME[name].parse(value, f"{where}: {key}")
    return values
