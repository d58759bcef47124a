"""The page of promises names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_promise_names_a_test() -> None:
    text = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    tests = re.findall(r"`(tests/\S+\.py)::(\w+)` \|$", text, re.MULTILINE)
    assert len(tests) == len(rows) > 0
    missing = [
        f"{file}::{name}"
        for file, name in tests
        if f"def {name}(" not in ((ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else "")
    ]
    assert not missing
