"""Fixes of the baseline's findings: the command that accepts the current metrics."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Commands:
    """Commands for fixes: `accept` accepts the current metrics, `rerun` runs the baseline check without workers."""

    accept: str
    rerun: str


class Intent(enum.Enum):
    """The reason to accept the current metrics."""

    CHANGED = enum.auto()  # The change is intended.
    BETTER = enum.auto()  # Lock in the improvement.
    NEW_METRIC = enum.auto()  # The baseline does not have this metric yet.
    NEW_VARIANT = enum.auto()  # The baseline does not have this variant yet.
    MODEL_NOT_KEPT = enum.auto()  # The accepted model is not kept with the baseline yet.
    GONE = enum.auto()  # The model or variant of an entry no longer exists.


_TEXTS: Final[Mapping[Intent, str]] = {
    Intent.CHANGED: "if intended, accept it with:\n",
    Intent.BETTER: "to lock in the improvement:\n",
    Intent.NEW_METRIC: "set its tolerance to null in the file, or accept it with:\n",
    Intent.NEW_VARIANT: "accept them with: ",
    Intent.MODEL_NOT_KEPT: "keep the model with: ",
    Intent.GONE: "if it was removed on purpose, remove its entry with: ",
}


def update_fix(intent: Intent, command: str) -> str:
    """The fix for this intent: run `command`, which updates the baseline."""
    return _TEXTS[intent] + command
