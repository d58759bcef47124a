"""Holds user-visible text to the project's style: plain technical English.

    python tools/language_check.py            # every hit: file:line: pattern "text" -> write instead
    python tools/language_check.py --count    # the number of hits per pattern and per folder

Reads the string literals, docstrings and comments of the package, of `benchmarks/`, `demo/`, `examples/`, `fixtures/`
and `tools/`, and the English pages (README, CHANGELOG, docs without docs/zh). Fenced blocks of the pages are read
too, since they show our messages; inline code is not. Exceptions stand in `language_exceptions.txt` beside this file,
as `PATH: TEXT: REASON`: lines of PATH that contain TEXT are skipped. An exception that matches nothing is an error.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
EXCEPTIONS: Final = Path(__file__).with_name("language_exceptions.txt")

_COUNTED: Final = "scales?|tests?|figures?|entry|line|file|folder|sample|row|name|variant"
_PER: Final = "channel|aspect|tensor|layer|batch|block|model|sample|variant|run|pass"
_COMPARED: Final = "longer|more|less|fewer|larger|smaller|slower|faster|worse|better|other|different"
#: A pattern that native readers stumble over, and what to write instead.
PATTERNS: Final = {
    r"\btold\b": "reported; by default",
    r"\btells?\b(?! you\b)": "reports, shows, says",
    r"\basked\b": "requested, expected, required",
    r"\bwanted\b": "required, expected",
    r"\banew\b|\bonce more\b": "again",
    rf"\b(?:{_COUNTED}) an? (?:{_PER})\b": "per",
    rf"\b(?:is|are) no (?!(?:{_COMPARED})\b)\w+": "is not a, is missing",
    r"\bof (?:one's own|ours|theirs)\b": "your own, custom; or leave it out",
    r"\b(?:to|be|and|been|is|are|was|were) mend(?:ed)?\b|\bmends?\b|\bmended\b|\bmending\b": "fix, fixed",
    r"\bhealthy twins?\b|\btwins?\b": "healthy counterpart",
    r"\bis accused\b|\bare accused\b|\baccuses?\b|\baccused\b": "reported; a false alarm",
    r"\bso for \d+ more\b|\bso for \{|\bmore of the same\b": "N other layers are affected too",
    r"\bhence\b": "which causes, caused by",
    r"\belsewhere\b": "on the target; another place by name",
    r"\b(?:is|are) meant to be\b|\bshall stay\b|\bshall\b": "intended, to keep, must",
    r"\bas it is\b|\bas they are\b|\bas ARM does\b": "unmodified, as on ARM",
    r"\blikeness\b": "similarity",
    r"\brungs?\b|\bladder\b": "step, stage",
    r"\bwhoever\b|\bnobody\b|\bsomebody\b": "name the subject",
    r"\bbefell\b|\bjudged is\b": "subject, verb, object",
    r"\bso many\b": "the number",
}
CODE: Final = ("pytest_mnnquant", "benchmarks", "demo", "examples", "fixtures", "tools")


@dataclass(frozen=True)
class Hit:
    """A phrase that breaks the style."""

    path: Path
    line: int
    text: str
    pattern: str

    def as_text(self) -> str:
        """One line for a person."""
        where = self.path.relative_to(ROOT)
        return f'{where}:{self.line}: "{self.text}": write: {PATTERNS[self.pattern]}'


def lines_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of strings (docstrings included) and comments."""
    source = path.read_text(encoding="utf-8")
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            for number, text in enumerate(token.string.splitlines()):
                yield token.start[0] + number, text


def lines_of_page(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page, without inline code."""
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        yield number, re.sub(r"`[^`]*`", "``", text)


def hits_of(path: Path) -> Iterator[Hit]:
    """Every phrase of a file that breaks the style."""
    lines = lines_of_code(path) if path.suffix == ".py" else lines_of_page(path)
    for number, text in lines:
        for pattern in PATTERNS:
            for match in re.finditer(pattern, text, re.IGNORECASE):
                yield Hit(path, number, match[0], pattern)


def files() -> Iterator[Path]:
    """All files whose text the style binds."""
    for folder in CODE:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if path != Path(__file__).resolve())
    yield from sorted((ROOT / "pytest_mnnquant").rglob("*.html"))
    yield from (ROOT / name for name in ("README.md", "CHANGELOG.md"))
    yield from (path for path in sorted((ROOT / "docs").rglob("*.md")) if "zh" not in path.relative_to(ROOT).parts)


def allowed() -> list[tuple[str, str]]:
    """(path, text) of each exception.

    Raises:
        SystemExit: A line has no reason.
    """
    pairs = []
    for number, line in enumerate(EXCEPTIONS.read_text(encoding="utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            path, _, rest = line.partition(": ")
            text, _, reason = rest.rpartition(": ")
            if not (path and text and reason):
                raise SystemExit(f"{EXCEPTIONS.name}:{number}: expected PATH: TEXT: REASON")
            pairs.append((path, text))
    return pairs


def main() -> int:
    """Print the hits; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="numbers only")
    options = parser.parse_args()
    exceptions, used = allowed(), set()
    hits = []
    for path in files():
        source = path.read_text(encoding="utf-8").splitlines()
        for hit in hits_of(path):
            key = next(
                (
                    pair
                    for pair in exceptions
                    if pair[0] == str(path.relative_to(ROOT)) and pair[1] in source[hit.line - 1]
                ),
                None,
            )
            used.add(key)
            hits += [] if key else [hit]
    unused = [pair for pair in exceptions if pair not in used]
    if options.count:
        for pattern, number in Counter(hit.pattern for hit in hits).most_common():
            print(f"{number:6}  {pattern}")
        for folder, number in Counter(hit.path.relative_to(ROOT).parts[0] for hit in hits).most_common():
            print(f"{number:6}  {folder}")
    else:
        for hit in hits:
            print(hit.as_text())
    for name, text in unused:
        print(f"{EXCEPTIONS.name}: {name}: {text!r} matches nothing: remove it")
    print(f"{len(hits)} hits in {len({hit.path for hit in hits})} files")
    return 1 if hits or unused else 0


if __name__ == "__main__":
    sys.exit(main())
