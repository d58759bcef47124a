"""Keeps the exit status of a run that has models: hooks of a conftest.py or plugin can't turn it into 0.

The code of a conftest.py is the user's own, and can disable this plugin. What is held are ends that happen by mistake:
`pytest.exit(returncode=0)` in any hook, `pytest_cmdline_main` that returns 0, `sys.exit()` while a conftest.py is
imported, and a changed `session.exitstatus`.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import pytest

from pytest_mnnquant.config import given

# Options that print something instead of running tests.
_PRINTS: Final = ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow", "collectonly")


class ExitStatus:
    """Notes how a run went, to judge the exit status 0 at its end. A plugin of pytest."""

    def __init__(self) -> None:
        self.is_started = False
        self.is_finished = False
        self.is_exited = False
        self.failed: set[str] = set()

    def pytest_sessionstart(self) -> None:
        """Note that tests were about to run."""
        self.is_started = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note that `pytest.exit` was called; an interrupt by the keyboard has its own exit status."""
        self.is_exited = self.is_exited or excinfo.type is not KeyboardInterrupt

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note tests that judged a model and failed."""
        is_check = getattr(report, "mnnquant_failed", False) or getattr(report, "mnnquant", ())
        if report.outcome == "failed" and is_check:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Note that the end of the run was reached by all plugins."""
        self.is_finished = True

    def problem(self, config: pytest.Config) -> str:
        """Why the exit status must not be 0; empty if it may."""
        if hasattr(config, "workerinput") or any(config.getoption(name, False) for name in _PRINTS):
            return ""
        if self.failed:
            checks = "1 failed check" if len(self.failed) == 1 else f"{len(self.failed)} failed checks"
            return f"{checks}: a hook changed session.exitstatus; remove the change"
        is_typed = bool(config.getoption("mnn_model", None) or config.getoption("mnn_config", None))
        if not (is_typed or given.is_requested(config) or given.may_hold_ids(config.args)):
            return ""
        if self.is_exited:
            return "models not judged: pytest.exit(returncode=0) ended the run; call pytest.exit(returncode=1)"
        if not self.is_finished and (self.is_started or is_typed):
            return "models not judged: a hook ended pytest before its tests; return None from pytest_cmdline_main"
        return ""


@contextmanager
def early_end_as_usage_error() -> Generator[None, None, None]:
    """Raise `pytest.UsageError` if a conftest.py ends the process with status 0 when it is imported."""
    try:
        yield
    except SystemExit as end:
        if end.code:
            raise
        raise pytest.UsageError(
            "exit status 0, required: models judged; a conftest.py calls sys.exit(); call pytest.exit(returncode=1)"
        ) from None


def judged_status(config: pytest.Config, status: int) -> int:
    """The exit status of the run: 1 with a line on stderr, if `status` is 0 but must not be."""
    plugin: ExitStatus | None = config.pluginmanager.get_plugin("mnnquant-exit-status")
    problem = plugin.problem(config) if plugin and not status else ""
    if not problem:
        return status
    sys.stderr.write(f"ERROR: exit status 0, required 1: {problem}\n")
    return int(pytest.ExitCode.TESTS_FAILED)
