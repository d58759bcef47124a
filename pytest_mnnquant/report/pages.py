"""The page of a rule: what it means, why it happens, how to see and to fix it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parent.parent
# In a wheel the pages are part of the package; in a checkout they are where readers look for them.
_FOLDERS: Final = (_HERE / "rules", _HERE.parent / "docs" / "rules")


def rule_page(code: str) -> str:
    """The Markdown of `docs/rules/CODE.md`; empty if the package came without its pages."""
    paths = (folder / f"{code}.md" for folder in _FOLDERS)
    return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), "")
