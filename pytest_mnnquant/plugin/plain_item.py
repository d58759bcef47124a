"""Items whose failures are plain text."""

from __future__ import annotations

from typing import Any

import pytest


class CheckFailed(Exception):
    """A check failed; `text` is the report for the user."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class PlainItem(pytest.Item):
    """An item whose failure is plain text."""

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Failed checks as plain text; anything else as pytest shows it."""
        if isinstance(excinfo.value, CheckFailed):
            return excinfo.value.text
        return super().repr_failure(excinfo)
