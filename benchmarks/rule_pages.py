"""The index of the pages on rules, `docs/rules/README.md`, and what pages show of real output.

    python benchmarks/rule_pages.py            # the index, from the catalogue of rules
    mkdir OUTPUTS && MNNQUANT_RECORD_OUTPUT=OUTPUTS pytest tests/faults tests/plugin
    python benchmarks/rule_pages.py OUTPUTS    # the section "In our output" of each rule that one of these runs reports

The text of the pages is written by hand; `tests/test_rule_pages.py` holds their form. Of all outputs with a rule a page
shows the one that is most like its last one. Folders are left out of paths, and long names of layers are shortened.
"""

from __future__ import annotations

import difflib
import itertools
import re
import sys
import tempfile
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.rule import Rule
from pytest_mnnquant.report.width import wrapped

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "rules"
#: Pages are printed in terminals.
WIDTH: Final = 80
#: A page shows no longer output than this.
MOST_LINES: Final = 16
HEADING: Final = "\n## In our output\n```text\n"
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

What the gate reports about a model, with one page per rule. In a terminal:
`pytest-mnnquant explain MNQ304`. `benchmarks/rule_pages.py` writes this index.

An error fails its check, a warning does not. A gap leaves the check
inconclusive, which fails only with `--mnn-strict`. One gap is a warning without
`--mnn-strict`: [MNQ730](MNQ730.md).
"""
# The first line of a finding in a failed check, and of a warning in the summary.
_FINDING: Final = re.compile(r"  (MNQ\d{3}) \S+  \S")
_WARNING: Final = re.compile(r"  warning (MNQ\d{3}) [^:]+: \S")
# The line above the findings of a check that did not pass.
_HEAD: Final = re.compile(r": \w+ (?:failed|inconclusive): (follows from|MNQ)")
# The first line of a part of a finding.
_PART: Final = re.compile(r"  MNQ\d{3} \S+  |  warning (?=MNQ)|    [a-z]+(?: [a-z]+)?: |    also |    and (?=\d)")
_PLACES: Final = "|".join(re.escape(str(path)) for path in (tempfile.gettempdir(), Path.home(), FOLDER.parent.parent))
_FOLDERS: Final = re.compile(rf"(?:{_PLACES})/(?:[^\s/'\"=:,]+/)*")
# The long name of a layer, of which the first two parts are shown.
_LONG_NAME: Final = re.compile(r"(/[^\s/]+/[^\s/]+/)[^\s/:,'=]{26,}")
_COMMAND: Final = re.compile(r"(pytest|pytest-mnnquant|python) \S")


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


def blocks(lines: Sequence[str]) -> Iterator[tuple[str, bool, list[str]]]:
    """Each finding that a run printed: its code, whether it is a root cause or a warning, and its lines."""
    is_root = True
    for start, line in enumerate(lines):
        if head := _HEAD.search(line):
            is_root = head[1] != "follows from"
        if first := _WARNING.match(line) or _FINDING.match(line):
            end = start + 1
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            yield first[1], is_root or line.startswith("  warning"), list(lines[start:end])


def shortened(lines: Sequence[str]) -> list[str]:
    """The lines without folders in paths, filled again to the width of a page."""
    parts: list[tuple[str, list[str]]] = []
    for line in lines:
        if start := _PART.match(line):
            parts.append((start[0], [line[start.end() :]]))
        else:
            parts[-1][1].append(line.strip())
    return [text for first, part in parts for text in wrapped(first, _joined(part), WIDTH)]


def _joined(lines: Sequence[str]) -> str:
    """The text that was wrapped into these lines: a command begins a line of its own."""
    text = ""
    for line in lines:
        bare = _LONG_NAME.sub(r"\1...", _FOLDERS.sub("", line)).removesuffix("\\").strip()
        separator = "\n" if text.endswith(":") and _COMMAND.match(bare) else " " if text else ""
        text += separator + bare
    return text


def outputs(folder: Path) -> Mapping[str, list[list[str]]]:
    """By rule, all that the recorded runs of a folder printed about it: root causes, if there are any."""
    roots: dict[str, list[list[str]]] = defaultdict(list)
    effects: dict[str, list[list[str]]] = defaultdict(list)
    for path in sorted(folder.glob("*.txt")):
        for code, is_root, lines in blocks(path.read_text(encoding="utf-8").splitlines()):
            if "      ..." not in lines and len(text := shortened(lines)) <= MOST_LINES:
                (roots if is_root else effects)[code].append(text)
    return {**effects, **roots}


def with_output(page: str, candidates: Sequence[list[str]]) -> str:
    """The page with the candidate that is most like what it shows."""
    text, _, old = page.partition(HEADING)
    words = old.split()
    best = max(candidates, key=lambda lines: difflib.SequenceMatcher(None, words, " ".join(lines).split()).ratio())
    return f"{text}{HEADING}" + "\n".join(best) + "\n```\n"


def main() -> None:
    """Write the index; with a folder of recorded outputs the pages' sections too."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "README.md").write_text(index(), encoding="utf-8")
    for code, candidates in outputs(Path(sys.argv[1])).items() if len(sys.argv) > 1 else ():
        page = FOLDER / f"{code}.md"
        page.write_text(with_output(page.read_text(encoding="utf-8"), candidates), encoding="utf-8")
    if len(sys.argv) > 1:
        print("no output of:", *sorted(RULES.keys() - outputs(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
