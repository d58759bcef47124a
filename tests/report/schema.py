"""The published schema of the JSON report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FILE = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"
SCHEMA: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def assert_fits_schema(report: Any) -> None:
    """Assert that a report is what is published."""
    problems = [f"{error.json_path}: {error.message[:200]}" for error in VALIDATOR.iter_errors(report)]
    assert not problems, problems
