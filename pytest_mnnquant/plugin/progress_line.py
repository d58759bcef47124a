"""What is being done, how far it is and for how long: one line below pytest's own, only on a terminal."""

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
    """The line. It is written below the line that pytest is writing, and taken away before pytest goes on."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._step = ""
        self._began = self._drew = 0.0
        # Where pytest's own line ends, while this one is shown.
        self._column: int | None = None

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal to draw on. With -s tests write there as they like, so it is left to them.

        Other reporters (pytest-sugar) move the cursor themselves.
        """
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        is_usual = type(reporter) is pytest.TerminalReporter and os.environ.get("TERM", "dumb") != "dumb"
        return is_usual and reporter.isatty and self._config.getoption("capture", "no") in ("fd", "sys")

    def start_step(self, model: str, step: str) -> None:
        """A step begins."""
        self._step, self._began = f"{model} {step}", time.monotonic()
        self._draw("")

    def advance(self, done: int, of: int, unit: str) -> None:
        """The step at hand is so far."""
        if time.monotonic() - self._drew > _PAUSE:
            self._draw(f", {done} of {of} {unit}" if of else "")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self) -> None:
        """Before pytest reports how a test ended."""
        self.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Before pytest reports how the run ended, which may be in the middle of a step."""
        self.clear()

    def clear(self) -> None:
        """Take the line away."""
        if self._column is not None:
            column, self._column = self._column, None
            with self._terminal():
                _write("\r\x1b[K\x1b[A" + (f"\x1b[{column}C" if column else ""))

    def _draw(self, how_far: str) -> None:
        self._drew = time.monotonic()
        with self._terminal():
            columns = shutil.get_terminal_size().columns
            start = "\r\x1b[K"
            if self._column is None:
                column = end_of(_current_line(self._config), columns)
                if column == columns:  # What pytest writes next begins a row, to which no movement brings the cursor.
                    return
                self._column, start = column, "\n"
            text = shown(f"  {self._step}{how_far}, {_duration(self._drew - self._began)}")
            _write(start + cut(text, columns - 1))

    def _terminal(self) -> AbstractContextManager[None]:
        """Where standard output is the terminal, and not the file that pytest captures it in."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        return cast("AbstractContextManager[None]", capture.global_and_fixture_disabled())


def _current_line(config: pytest.Config) -> str:
    """What pytest has written of its line so far.

    The public `width_of_current_line` is not enough: where a line breaks depends on where its wide characters are.
    """
    return str(config.get_terminal_writer()._current_line)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
