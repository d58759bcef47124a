"""The index of the pages on rules, `docs/rules/README.md`, written from the catalogue of rules.

    python benchmarks/rule_pages.py

The pages themselves are written by hand; `tests/test_rule_pages.py` holds their form.
"""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path
from typing import Final

from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.rule import Rule

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "rules"
#: Pages are printed in terminals.
WIDTH: Final = 80
#: What the first digit of a code stands for.
CHAPTERS: Final = {
    "0": "Nothing checked",
    "1": "Source and export",
    "2": "Tools and conversion",
    "3": "Params file",
    "4": "Coverage and stored weights",
    "5": "Calibration",
    "6": "Execution",
    "7": "Accuracy",
    "8": "Size and bundle",
    "9": "Latency, memory, history",
}
_INTRO: Final = """\
# Rules

What the gate reports about a model, with a page for each rule. In a
terminal: `pytest-mnnquant explain MNQ304`. This index is written by
`benchmarks/rule_pages.py`.

An error fails its check, a warning does not. A gap leaves the check
inconclusive, which `--mnn-strict` fails too. One gap only warns without
`--mnn-strict`: [MNQ730](MNQ730.md).
"""


def index() -> str:
    """The index in Markdown: for each rule its page, name, severity and meaning, by chapter."""
    parts = [_INTRO]
    rules = sorted(RULES.values(), key=lambda rule: rule.code)
    for digit, members in itertools.groupby(rules, key=lambda rule: rule.code[3]):
        lines = "\n".join(_item(rule) for rule in members)
        parts.append(f"## {digit}nn: {CHAPTERS[digit]}\n\n{lines}\n")
    return "\n".join(parts)


def _item(rule: Rule) -> str:
    text = f"- [{rule.code}]({rule.code}.md) {rule.name}, {rule.severity.value}: {rule.meaning}"
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def main() -> None:
    """Write the index."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "README.md").write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main()
