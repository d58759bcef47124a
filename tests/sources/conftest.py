"""Files that tests import leave no trace: their folders join `sys.path`, where others have files of the same name."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
