"""Parses the names of targets: this machine, the emulator, machines behind ssh, and those of the configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from pytest_mnnquant.targets.emulator import CPUS, NAME, emulator_target
from pytest_mnnquant.targets.ssh import SCHEME, SshLauncher
from pytest_mnnquant.targets.target import HOST, NoTarget, PythonCommand, Target, installed_mnn

#: The placeholder for the job's folder in a user's command.
FOLDER: Final = "{folder}"
_FORMS: Final = (
    f"{HOST}, {NAME} (:{', :'.join(CPUS)}), {NAME}-3.0.0 (MNN of that version), {SCHEME}USER@MACHINE, or a name "
    "from the configuration"
)
# The keys of a target's table with their types: those allowed with `command`, and those allowed with `ssh`.
_KEYS: Final[Mapping[str, Mapping[str, type[Any]]]] = {
    "command": {"command": str, "mnn": str, "device": bool},
    "ssh": {"ssh": str, "mnn": str, "python": str, "folder": str, "options": list},
}
_TYPES: Final = {str: "a string", bool: "true or false", list: "a list of strings"}
Table = Mapping[str, Any]


def target_named(name: str, tables: Mapping[str, Table]) -> Target | None:
    """The target of this name; None for this machine. `tables` are those of the configuration.

    Raises `NoTarget` if the name is unknown or the target is not set up.
    """
    if name == HOST:
        return None
    if name in tables:
        return table_target(name, tables[name])
    if name.startswith(SCHEME):
        return _ssh_target(name, {"ssh": name}, "--mnn-target")
    target = emulator_target(name)
    if target is None:
        configured = f"; configured: {', '.join(tables)}" if tables else ""
        raise NoTarget(f"unknown target {name!r}; expected: {_FORMS}{configured}")
    return target


def table_target(name: str, table: Table) -> Target:
    """The target of a table [tool.mnnquant.targets.NAME]. Raises `NoTarget`."""
    where = f"[tool.mnnquant.targets.{name}]"
    if is_reserved(name):
        raise NoTarget(f"{where}: the name {name!r} is reserved, or contains one of []@:/ or a blank")
    launchers = [key for key in _KEYS if key in table]
    if len(launchers) != 1:
        raise NoTarget(f"{where}: requires exactly one of the keys {' and '.join(map(repr, _KEYS))}")
    keys = _KEYS[launchers[0]]
    for key, value in table.items():
        if key not in keys:
            raise NoTarget(f"{where}: unknown key {key!r}; known with {launchers[0]!r}: {', '.join(keys)}")
        kind = keys[key]
        if not isinstance(value, kind) or (kind is list and not all(isinstance(item, str) for item in value)):
            raise NoTarget(f"{where}: {key!r} must be {_TYPES[kind]}")
        if any("\0" in text for text in (value if kind is list else [value]) if isinstance(text, str)):
            raise NoTarget(f"{where}: {key!r} contains a NUL character")
    version = table.get("mnn", "3")
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise NoTarget(f"{where}: mnn: {version!r} is not a version; expected e.g. 3.6.1")
    return _ssh_target(name, table, where) if launchers == ["ssh"] else command_target(name, table)


def command_target(name: str, table: Table) -> Target:
    """A target that a user's command reaches. The command takes Python's arguments; `{folder}` is the job's folder.

    Raises `NoTarget`.
    """
    where = f"[tool.mnnquant.targets.{name}]"
    try:
        words = shlex.split(table["command"])
    except ValueError as error:
        raise NoTarget(f"{where}: command: {error}") from None
    if not words:
        raise NoTarget(f"{where}: the key 'command' is empty")
    return Target(
        name,
        PythonCommand(lambda folder: [word.replace(FOLDER, str(folder)) for word in words]),
        mnn=table.get("mnn") or installed_mnn(),
        is_device=bool(table.get("device")),
    )


def _ssh_target(name: str, table: Table, where: str) -> Target:
    destination = table["ssh"].removesuffix("/")
    # ssh would read a leading dash as an option; pytest's ids can't contain the other characters.
    if not destination.removeprefix(SCHEME) or re.search(r"^-|[\s\[\]]|::", destination):
        raise NoTarget(f"{where}: {destination!r} is not a valid machine; expected e.g. {SCHEME}USER@MACHINE")
    launcher = SshLauncher(
        destination, table.get("python") or "python3", table.get("folder", ""), table.get("options", ())
    )
    return Target(name, launcher, mnn=table.get("mnn") or installed_mnn(), is_device=True)


def is_reserved(name: str) -> bool:
    """Whether a name is a built-in target, or can't be part of a pytest id."""
    return name == HOST or name.startswith(NAME) or any(sign in name for sign in "[]@:/ \t") or not name
