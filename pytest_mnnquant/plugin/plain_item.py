"""Items whose failures are plain text."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_mnnquant.evidence.source import as_finding
from pytest_mnnquant.evidence.steps import UNUSABLE, StepFailed, Unusable
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.report.failure import findings_text
from pytest_mnnquant.runtime.step_clock import timed_step


class CheckFailed(Exception):
    """A check failed; `text` is the report for the user."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class PlainItem(pytest.Item):
    """An item whose failure is plain text. `check` is the name of its check, `has_failed` whether it failed.

    A hook of the user may swallow what the item raises.
    """

    check: str
    has_failed = False

    def judge(self) -> None:
        """Judge, and attach the record. Raises `CheckFailed`, or skips."""
        raise NotImplementedError

    def attach_failure(self, result: Result) -> None:
        """Attach the record of a check that an exception ended; it replaces a record that is attached already."""
        raise NotImplementedError

    def runtest(self) -> None:
        """Judge; any other exception fails the item as one finding, which the reports show too."""
        self.has_failed = True
        try:
            with timed_step(self.check):
                self.judge()
        except CheckFailed:
            raise
        except pytest.skip.Exception:
            self.has_failed = False
            raise
        except Exception as error:
            result = Result.from_findings(self.check, [self._finding(error)])
            self.attach_failure(result)
            raise CheckFailed(findings_text(f"{self.nodeid} failed:", result)) from None
        self.has_failed = False

    def _finding(self, error: Exception) -> Finding:
        if isinstance(error, Unusable):
            return error.finding
        return as_finding(error if isinstance(error, UNUSABLE) else StepFailed(f"run {self.check}", error))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Failed checks as plain text; anything else as pytest shows it."""
        if isinstance(excinfo.value, CheckFailed):
            return excinfo.value.text
        return super().repr_failure(excinfo)
