"""Refuses options that request a judgement in a run that has neither a model nor a test that uses the fixtures.

Without xdist, the run ends before its first test. With xdist, only the workers know the tests: each says whether
one of its tests uses the fixtures, and the run ends with the same error and exit status after its last test.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pytest

from pytest_mnnquant.plugin import fixtures

# The key of a worker's output.
_USE: Final = "mnnquant_use_of_options"
_ENDED: Final = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


class Use(enum.IntEnum):
    """Whether tests that use the fixtures exist, and are selected by -k, -m and the like."""

    NONE = 0
    DESELECTED = 1
    SELECTED = 2


class UnusedOptions:
    """A plugin of pytest. `flags` are the options of the command line that request a judgement."""

    def __init__(self, config: pytest.Config, flags: Sequence[str]) -> None:
        self.config = config
        self.flags = ", ".join(flags)
        self.use = Use.NONE
        self.line = ""

    @property
    def error(self) -> str:
        """Why the run is refused."""
        return (
            f"{self.flags}: no model is given, and no test uses the fixtures of pytest-mnnquant; requires --mnn-model "
            "or --mnn-config"
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: Sequence[pytest.Item]) -> None:
        """Look at all tests, before -k and -m select. Raises `pytest.UsageError`, except on xdist's workers."""
        if session.testsfailed or use_fixtures(items):  # A file that failed may use them.
            self.use = Use.DESELECTED
        elif not hasattr(self.config, "workeroutput"):
            raise pytest.UsageError(self.error)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Look at the selected tests."""
        if use_fixtures(session.items):
            self.use = Use.SELECTED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what one of xdist's workers has seen; nothing is known of one that crashed."""
        self.use = max(self.use, Use(getattr(node, "workeroutput", {}).get(_USE, Use.SELECTED)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send a worker's answer to its controller, which sets the exit status if nothing used the options."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput[_USE] = int(self.use)
        elif session.exitstatus in _ENDED and not self.config.option.collectonly:
            self._end(session)

    def _end(self, session: pytest.Session) -> None:
        if self.use is Use.NONE:
            self.line = f"ERROR: {self.error}"
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif self.use is Use.DESELECTED:
            self.line = f"WARNING: {self.flags}: no model was judged: all tests that use the fixtures are deselected"
            if session.exitstatus == pytest.ExitCode.OK and self.config.getoption("mnn_strict", None):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show why nothing used the options."""
        if self.line:
            terminalreporter.write_line(self.line, red=self.use is Use.NONE, yellow=self.use is Use.DESELECTED)


def use_fixtures(items: Iterable[pytest.Item]) -> bool:
    """Whether one of the tests uses a fixture of this package, itself or by another fixture."""
    return any(not fixtures.NAMES.isdisjoint(getattr(item, "fixturenames", ())) for item in items)
