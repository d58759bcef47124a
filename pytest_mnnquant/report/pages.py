"""The page of a rule: its meaning, its causes, how to see it and how to fix it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parent.parent
# A wheel has the pages in the package, a checkout has them in docs/.
_FOLDERS: Final = (_HERE / "rules", _HERE.parent / "docs" / "rules")


def rule_page(code: str) -> str:
    """The Markdown of `docs/rules/CODE.md`; empty if the package has no pages."""
    paths = (folder / f"{code}.md" for folder in _FOLDERS)
    return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), "")
