"""Holds user-visible text to the project's style: plain technical English.

    python tools/language_check.py            # every hit: file:line: "text": write: what to write instead
    python tools/language_check.py --count    # the number of hits per pattern and per folder

Reads the string literals, docstrings and comments of the package, of `benchmarks/`, `demo/`, `examples/`, `fixtures/`
and `tools/`, the templates of the HTML report, the English pages (README, CHANGELOG, CONTRIBUTING, SECURITY, docs), and
the issue templates. Fenced blocks of the pages are read too, since they show the messages; inline code is not.
Exceptions are listed in `language_exceptions.txt` beside this file, as `PATH: TEXT: REASON`: lines of PATH that contain
TEXT are skipped. An exception that matches nothing is an error.

Words that are right or wrong by their meaning (`where` for `if`, `figure` for a measured value) have no pattern.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
EXCEPTIONS: Final = "tools/language_exceptions.txt"

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
    r"\bhence\b|^\W*so: ": "which causes, caused by",
    r"\belsewhere\b": "on the target; another place by name",
    r"\b(?:is|are) meant to be\b|\bshall stay\b|\bshall\b": "intended, to keep, must",
    r"\bas it is\b|\bas they are\b|\bas ARM does\b": "unmodified, as on ARM",
    r"\blikeness\b": "similarity",
    r"\brungs?\b|\bladder\b": "step, stage",
    r"\bwhoever\b|\bnobody\b|\bsomebody\b": "name the subject",
    r"\bbefell\b|\bjudged is\b": "subject, verb, object",
    r"\bso many\b": "the number",
}
_INLINE_CODE: Final = re.compile(r"`[^`]*`")
#: What is read, as patterns below the root.
CODE: Final = ("pytest_mnnquant", "benchmarks", "demo", "examples", "fixtures", "tools")
PAGES: Final = (
    "*.md",
    "docs/**/*.md",
    "examples/**/*.md",
    "fixtures/*.md",
    ".github/**/*.yml",
    "action.yml",
    "mkdocs.yml",
    "pytest_mnnquant/**/*.html",
    "pytest_mnnquant/**/*.js",
)
#: The Chinese pages, and this table itself.
NOT_READ: Final = ("docs/zh", "README.zh-CN.md", "tools/language_check.py")
_TEXTS: Final = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


@dataclass(frozen=True)
class Hit:
    """A phrase that breaks the style; `path` is relative to the root, with `/` between its parts."""

    path: str
    line: int
    text: str
    pattern: str

    def as_text(self) -> str:
        """One line for a person."""
        return f'{self.path}:{self.line}: "{self.text}": write: {PATTERNS[self.pattern]}'


@dataclass(frozen=True)
class ExceptedLine:
    """Lines of the file `path` that contain `text` are not read, for a reason."""

    path: str
    text: str
    reason: str


def lines_of_code(source: str) -> Iterator[tuple[int, str]]:
    """The lines of strings (docstrings included) and comments, without inline code and the code in f-strings."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _TEXTS:
            text = token.string
            if token.type == tokenize.STRING and re.match(r"\w*[fF]", text):  # Python 3.11 does not split f-strings.
                text = re.sub(r"\{[^{}]*\}", "{}", text)
            for number, line in enumerate(text.splitlines()):
                yield token.start[0] + number, _without_code(line)


def lines_of_page(source: str) -> Iterator[tuple[int, str]]:
    """The lines of a page, without inline code."""
    for number, text in enumerate(source.splitlines(), 1):
        yield number, _without_code(text)


def _without_code(line: str) -> str:
    return _INLINE_CODE.sub("``", line)


def hits_of(path: str, source: str) -> Iterator[Hit]:
    """Every phrase of a file that breaks the style."""
    for number, text in lines_of_code(source) if path.endswith(".py") else lines_of_page(source):
        for pattern in PATTERNS:
            for match in re.finditer(pattern, text, re.IGNORECASE):
                yield Hit(path, number, match[0], pattern)


def read_files(root: Path) -> Iterator[tuple[str, str]]:
    """The path and the text of every file that the style binds."""
    found = {path for folder in CODE for path in (root / folder).rglob("*.py")}
    found |= {path for pattern in PAGES for path in root.glob(pattern)}
    for path in sorted(found):
        name = path.relative_to(root).as_posix()
        if not any(name == other or name.startswith(f"{other}/") for other in NOT_READ):
            yield name, path.read_text(encoding="utf-8")


def read_exceptions(text: str) -> list[ExceptedLine]:
    """The exceptions of a file of exceptions.

    Raises:
        SystemExit: A line has no path, no text or no reason.
    """
    exceptions = []
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith("#"):
            path, _, rest = line.partition(": ")
            phrase, _, reason = rest.rpartition(": ")
            if not (path and phrase and reason):
                raise SystemExit(f"{EXCEPTIONS}:{number}: expected PATH: TEXT: REASON")
            exceptions.append(ExceptedLine(path, phrase, reason))
    return exceptions


def check(root: Path, exceptions: Sequence[ExceptedLine]) -> tuple[list[Hit], list[ExceptedLine]]:
    """The hits below a root, and the exceptions that match none of them."""
    hits, unused = [], set(exceptions)
    for name, source in read_files(root):
        lines = source.splitlines()
        for hit in hits_of(name, source):
            matching = [item for item in exceptions if item.path == name and item.text in lines[hit.line - 1]]
            unused.difference_update(matching)
            hits += [] if matching else [hit]
    return hits, [item for item in exceptions if item in unused]


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Print the hits and the unused exceptions; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="numbers only")
    options = parser.parse_args(arguments)
    hits, unused = check(root, read_exceptions((root / EXCEPTIONS).read_text(encoding="utf-8")))
    if options.count:
        for pattern, number in Counter(hit.pattern for hit in hits).most_common():
            print(f"{number:6}  {pattern}")
        for folder, number in Counter(hit.path.partition("/")[0] for hit in hits).most_common():
            print(f"{number:6}  {folder}")
    else:
        for hit in hits:
            print(hit.as_text())
    for item in unused:
        print(f"{EXCEPTIONS}: {item.path}: {item.text!r} matches nothing: remove it")
    print(f"{len(hits)} hits in {len({hit.path for hit in hits})} files")
    return 1 if hits or unused else 0


if __name__ == "__main__":
    sys.exit(main())
