"""How far a long step is: told by who does it, heard by who shows it. Where nobody listens it costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

#: Gets how many are done, of how many, and of what ("batches"); 0 of 0 where a step can only be waited for.
Listener = Callable[[int, int, str], None]
_listeners: list[Listener] = []


def listen(listener: Listener | None) -> None:
    """Have this one hear of all steps from now on, in place of the one before; None: nobody."""
    _listeners[:] = [listener] if listener else []


def has_listener() -> bool:
    """Whether anybody listens."""
    return bool(_listeners)


def advance(done: int, of: int, unit: str) -> None:
    """Tell how far the step at hand is."""
    for listener in _listeners:
        listener(done, of, unit)


def advance_child(file: Path) -> None:
    """Tell how far a child process is, by the file in which it keeps that."""
    try:
        done, of, unit = file.read_text(encoding="ascii").split()
        advance(int(done), int(of), unit)
    except (OSError, ValueError):  # It keeps none, or is writing it.
        advance(0, 0, "")
