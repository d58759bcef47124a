"""The progress line: the current step, its progress and its time, below pytest's own line and only on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import AbstractContextManager
from typing import Final, cast

import pytest

from pytest_mnnquant.report.width import cut, end_of, shown

# Seconds between two drawings of the line.
_PAUSE: Final = 0.2


class Progress:
    """The progress line. It is drawn below the line that pytest is writing, and removed before pytest continues."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._step = ""
        self._began = self._drew = 0.0
        # The end of pytest's own line, while the progress line is shown.
        self._column: int | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the line can be drawn on a terminal. Not with -s, since tests then write to the terminal too.

        Other reporters (pytest-sugar) move the cursor, so the line is not drawn with them.
        """
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        is_usual = type(reporter) is pytest.TerminalReporter and os.environ.get("TERM", "dumb") != "dumb"
        return is_usual and reporter.isatty and self._config.getoption("capture", "no") in ("fd", "sys")

    def start_step(self, model: str, step: str) -> None:
        """A step begins."""
        self._step, self._began = f"{model} {step}", time.monotonic()
        self._draw("")

    def advance(self, done: int, of: int, unit: str) -> None:
        """Show the progress of the current step."""
        if time.monotonic() - self._drew > _PAUSE:
            self._draw(f", {done} of {of} {unit}" if of else "", of / done if done else 0.0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self) -> None:
        """Remove the line before pytest reports how a test ended."""
        self.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Remove the line before pytest reports how the run ended, which may be during a step."""
        self.clear()

    def clear(self) -> None:
        """Remove the line."""
        if self._column is not None:
            column, self._column = self._column, None
            with self._terminal():
                _write("\r\x1b[K\x1b[A" + (f"\x1b[{column}C" if column else ""))

    def _draw(self, how_far: str, whole: float = 0.0) -> None:
        """Draw the line; `whole` is the duration of the step as a multiple of the time so far, 0 if unknown."""
        self._drew = time.monotonic()
        with self._terminal():
            columns = shutil.get_terminal_size().columns
            start = "\r\x1b[K"
            if self._column is None:
                column = end_of(_current_line(self._config), columns)
                if column == columns:  # pytest's next text begins a new row, which cursor movements can't reach.
                    return
                self._column, start = column, "\n"
            spent = self._drew - self._began
            left = f", about {_duration(spent * (whole - 1))} left" if whole else ""
            text = shown(f"  {self._step}{how_far}, {_duration(spent)}{left}")
            _write(start + cut(text, columns - 1))

    def _terminal(self) -> AbstractContextManager[None]:
        """A context in which standard output is the terminal, not pytest's capture file."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        return cast("AbstractContextManager[None]", capture.global_and_fixture_disabled())


def _current_line(config: pytest.Config) -> str:
    """The text of pytest's current line so far.

    The public `width_of_current_line` is not enough: line breaks depend on the positions of wide characters.
    """
    return str(config.get_terminal_writer()._current_line)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
