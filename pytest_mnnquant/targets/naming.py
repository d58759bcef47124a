"""Targets by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pytest_mnnquant.targets.emulator import CPUS, NAME, emulated
from pytest_mnnquant.targets.target import HOST, NoTarget, Target, own_command

_FORMS: Final = f"{HOST}, {NAME} (:{', :'.join(CPUS)}), {NAME}-3.0.0 (MNN of that version), or one of the configuration"


def target_named(name: str, commands: Mapping[str, str]) -> Target | None:
    """The target of this name; None for this machine itself. `commands` are those of the configuration.

    Raises `NoTarget` where there is none of that name, or it is not set up.
    """
    if name == HOST:
        return None
    if name in commands:
        return own_command(name, commands[name])
    found = emulated(name)
    if found is None:
        own = f"; configured: {', '.join(commands)}" if commands else ""
        raise NoTarget(f"{name!r} is no target; they read like: {_FORMS}{own}")
    return found


def is_reserved(name: str) -> bool:
    """Whether a name means a target already, or can't stand in an id of pytest's."""
    return name == HOST or name.startswith(NAME) or any(sign in name for sign in "[]@:/ \t") or not name
