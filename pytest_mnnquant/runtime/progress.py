"""The progress of a long step, reported to one listener. Without a listener it costs nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

#: Gets the number done, the total, and the unit ("batches"); 0 of 0 for a step without known progress.
Listener = Callable[[int, int, str], None]

# Owned by the plugin's session, which sets it when a step begins and removes it when the run ends.
_listener: Listener | None = None


def set_listener(listener: Listener | None) -> None:
    """Report all steps to this listener, which replaces the previous one; None: to no listener."""
    global _listener
    _listener = listener


def has_listener() -> bool:
    """Whether a listener is set for this thread: steps in the background report nothing."""
    return _listener is not None and threading.current_thread() is threading.main_thread()


def report_progress(done: int, total: int, unit: str) -> None:
    """Report the progress of the current step."""
    if _listener is not None and has_listener():
        _listener(done, total, unit)


class SilenceLimit:
    """The time limit of a step: `seconds` without progress. A child writes its progress to `file`."""

    def __init__(self, seconds: float, file: Path) -> None:
        self._seconds = seconds
        self._file = file
        self._start()

    def _start(self) -> None:
        self._seen = _content(self._file)
        self._end = time.monotonic() + self._seconds

    def left(self) -> float:
        """The seconds until the limit, at least 0. Progress since the last call starts the time again."""
        if _content(self._file) != self._seen:
            self._start()
        return max(0.0, self._end - time.monotonic())


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def report_child_progress(file: Path) -> None:
    """Report the progress of a child process, from the file in which it writes it."""
    try:
        done, total, unit = file.read_text(encoding="ascii").split()
        report_progress(int(done), int(total), unit)
    except (OSError, ValueError):  # The file is missing, or the child is writing it.
        report_progress(0, 0, "")
