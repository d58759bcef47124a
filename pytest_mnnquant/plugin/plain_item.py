"""Items whose failures are plain text."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_mnnquant.evidence.steps import StepFailed, step
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.report.failure import findings_text


class CheckFailed(Exception):
    """A check failed; `text` is the report for the user."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class PlainItem(pytest.Item):
    """An item whose failure is plain text."""

    def judge(self) -> None:
        """Judge, and attach the record. Raises `CheckFailed`, or skips."""
        raise NotImplementedError

    def runtest(self) -> None:
        """Judge; an unexpected exception fails the item as one finding."""
        try:
            with step(f"run {self.name.rpartition('::')[2]}", CheckFailed):
                self.judge()
        except StepFailed as error:
            result = Result.from_findings(self.name, [error.finding])
            raise CheckFailed(findings_text(f"{self.nodeid} failed:", result, in_report=False)) from None

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Failed checks as plain text; anything else as pytest shows it."""
        if isinstance(excinfo.value, CheckFailed):
            return excinfo.value.text
        return super().repr_failure(excinfo)
