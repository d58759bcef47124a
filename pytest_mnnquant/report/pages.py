"""The page of a rule: its meaning, its causes, how to see it and how to fix it."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

_PACKAGE: Final = files("pytest_mnnquant")
# A wheel has the pages in the package, a checkout has them in docs/.
_FOLDERS: Final = (_PACKAGE / "rules", _PACKAGE / ".." / "docs" / "rules")


def rule_page(code: str) -> str:
    """The Markdown of `docs/rules/CODE.md`; empty if the package has no pages."""
    pages = (folder / f"{code}.md" for folder in _FOLDERS)
    return next((page.read_text(encoding="utf-8") for page in pages if page.is_file()), "")
