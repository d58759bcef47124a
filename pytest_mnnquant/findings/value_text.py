"""Values of users in error messages: one line, of limited length, whatever the value is.

Loaded by every pytest run on a machine that has the plugin, so it imports nothing.
"""

from __future__ import annotations

from typing import Any

_LONGEST = 80


def shown(value: Any) -> str:
    """The `repr` of a value, cut if it is long; its type if it has none."""
    try:
        text = repr(value)
    except Exception:  # An integer of thousands of digits; tables nested too deeply; a `__repr__` that fails.
        return f"a value of type {type(value).__name__}"
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
