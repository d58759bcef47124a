"""How to fix a finding of the baseline: run the command that accepts what is measured now."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class Intent(enum.Enum):
    """Why the numbers of now are to be accepted."""

    CHANGED = enum.auto()  # The change is intended.
    BETTER = enum.auto()  # The baseline is to hold the improvement.
    NEW_METRIC = enum.auto()  # The baseline does not have this metric yet.
    NEW_VARIANT = enum.auto()  # The baseline does not have this variant yet.
    MODEL_NOT_KEPT = enum.auto()  # The accepted model is not kept with the baseline yet.
    GONE = enum.auto()  # The baseline has what is not there any more.


_TEXTS: Final[Mapping[Intent, str]] = {
    Intent.CHANGED: "if this is meant to be, accept it:\n",
    Intent.BETTER: "hold it to that:\n",
    Intent.NEW_METRIC: "have its tolerance be null in the file, or accept it:\n",
    Intent.NEW_VARIANT: "accept them as they are: ",
    Intent.MODEL_NOT_KEPT: "have it kept: ",
    Intent.GONE: "if it is gone for good, have it removed: ",
}


def update_fix(intent: Intent, command: str) -> str:
    """The fix that is to run `command`, which updates the baseline."""
    return _TEXTS[intent] + command
