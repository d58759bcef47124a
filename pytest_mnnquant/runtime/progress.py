"""How far a long step is: reported by what does it, to the one listener. Without a listener it costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

#: Gets how many are done, of how many, and of what ("batches"); 0 of 0 for a step that can only be waited for.
Listener = Callable[[int, int, str], None]

# Owned by the plugin's session, which sets it when a step begins and takes it away when the run ends.
_listener: Listener | None = None


def set_listener(listener: Listener | None) -> None:
    """Report all steps to this listener from now on, in place of the one before; None: to none."""
    global _listener
    _listener = listener


def has_listener() -> bool:
    """Whether there is a listener."""
    return _listener is not None


def report_progress(done: int, total: int, unit: str) -> None:
    """Report how far the step at hand is."""
    if _listener is not None:
        _listener(done, total, unit)


def report_child_progress(file: Path) -> None:
    """Report how far a child process is, by the file in which it writes that."""
    try:
        done, total, unit = file.read_text(encoding="ascii").split()
        report_progress(int(done), int(total), unit)
    except (OSError, ValueError):  # There is no such file, or the child is writing it.
        report_progress(0, 0, "")
