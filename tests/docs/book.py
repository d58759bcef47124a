"""A page of the manual as a program: the files it shows, the commands it types, what it says they print.

    python -m tests.docs.book PAGE FOLDER WHEEL      runs a page and prints what its commands print, to copy from

A fenced block with a title is a file; a `console` block holds commands (`$ `, going on below after a backslash), each
with what it prints: nothing is said, or all of it, or `...` for lines left out. Figures that differ from run to run are
not compared. A comment before the block says what is unusual: `<!-- exit 1 -->` the status of its last command,
`<!-- in FOLDER, exit 1 -->` where it is typed, `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(
    r"<!-- (?:in (?P<folder>[\w/-]+))?(?:, )?(?:exit (?P<status>\d+))?(?:not run: (?P<reason>.+))? -->\s*\Z"
)
_TITLE = re.compile(r'title="([^"]+)"')
# Figures that are the same in every run; all others are compared as "#".
_STEADY = re.compile(
    r"MNQ\d+|[\d,]+(?= bytes)|\d+(?= (?:failed|passed|skipped|of \d+ layers))"
    r"|[\d.]+(?=x (?:smaller|expected)|x +[\d.]+%)|int8|w8|top-1"
)
_MOVING = re.compile(r"\d[\d,.]*(?:e[+-]?\d+)?")
# Of a reader's shell, these come from the tests that run it.
_OURS = ("PYTEST", "PYTHON", "COV_", "COVERAGE", "CI", "GITHUB_", "VIRTUAL_ENV", "NO_COLOR", "FORCE_COLOR")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is (or ""), its text, and what the comment before it says."""

    language: str
    title: str
    text: str
    status: int = 0
    not_run: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Command:
    """One command, what the page says it prints, and the status it must end with."""

    line: str
    shown: tuple[str, ...]
    status: int


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in _FENCE.finditer(page):
        info, indent = found["info"].strip(), found["indent"]
        text = "".join(line.removeprefix(indent) for line in found["text"].splitlines(keepends=True))
        note, title = _NOTE.search(page[: found.start()]), _TITLE.search(info)
        language = info.split()[0] if info else ""
        said = (int(note["status"] or 0), note["reason"] or "", note["folder"] or "") if note else (0, "", "")
        yield Block(language, title[1] if title else "", text, *said)


def commands(block: Block) -> list[Command]:
    """The commands of a `console` block."""
    found: list[tuple[str, list[str]]] = []
    goes_on = False
    for line in block.text.splitlines():
        if goes_on:
            found[-1] = (found[-1][0] + "\n" + line, [])
        elif line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
            continue
        goes_on = line.endswith("\\")
    last = len(found) - 1
    return [
        Command(_without_comment(line), tuple(shown), block.status if number == last else 0)
        for number, (line, shown) in enumerate(found)
    ]


def _without_comment(line: str) -> str:
    return re.sub(r"\s+# .*$", "", line)


def plain(line: str) -> str:
    """A line as it is compared: runs of blanks and rules as one, figures that move as `#`, no one's folders."""
    line = re.sub(r"(?:\.\.\.|(?:/[\w.+-]+)+)/(?=\.pytest_cache/|\.venv/|out/)", "", line)
    line = re.sub(r"/(repaired|float)/(?:\w+|\.\.\.)/", r"/\1/.../", line)
    line = re.sub(r"[+-]+(?=\d)", "+-", line)  # An accuracy that moves a little may move either way.
    parts, end = [], 0
    for steady in _STEADY.finditer(line):
        parts += [_MOVING.sub("#", line[end : steady.start()]), steady[0]]
        end = steady.end()
    line = "".join([*parts, _MOVING.sub("#", line[end:])])
    return re.sub(r"([-=_])\1{3,}", r"\1\1\1", " ".join(line.split()))


def differs(shown: Sequence[str], printed: str) -> str:
    """The first shown line that was not printed where it should have been; "" where all were, or none is shown.

    Without a `...` before, after or between them the lines are all that was printed.
    """
    lines = [plain(line) for line in printed.strip("\n").splitlines()]
    place, free = 0, False
    for line in shown:
        if line.strip() == "...":
            free = True
            continue
        wanted = plain(line)
        rest = lines[place:] if free else lines[place : place + 1]
        if wanted not in rest:
            return line
        place, free = place + rest.index(wanted) + 1, False
    return "" if free or not shown or place == len(lines) else f"(nothing after {shown[-1]!r})"


@dataclass(frozen=True)
class Shell:
    """Types commands in a folder, with the programs of a virtual environment first."""

    folder: Path
    environment: Path | None = None
    #: Installed where a command asks pip for us: the registry has another version, or none.
    wheel: Path | None = None

    def run(self, line: str, folder: str = "") -> subprocess.CompletedProcess[str]:
        """One command, in 80 columns; both streams as one. A `.venv` in the folder counts as activated."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        programs = self.environment or self.folder / ".venv"
        own |= {"COLUMNS": "80", "OMP_NUM_THREADS": "1", "PATH": f"{programs / 'bin'}{os.pathsep}{own['PATH']}"}
        if self.wheel is not None:
            line = re.sub(r"'(pytest-mnnquant(?:\[[\w,]+\])?)'", rf"'\1 @ file://{self.wheel}'", line)
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder / folder,
            env=own,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def play(self, page: str, *, only: Sequence[str] = ("console",)) -> Iterator[tuple[Command, str, int]]:
        """Write the page's files and type its commands, in order: each command, what it printed, its status."""
        for block in blocks(page):
            if block.not_run:
                continue
            if block.title:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            elif block.language in only:
                for command in commands(block):
                    done = self.run(command.line, block.folder)
                    yield command, done.stdout, done.returncode


def problems(command: Command, printed: str, status: int) -> list[str]:
    """What of a command is not as the page says."""
    found = [] if status == command.status else [f"ended with {status}, not {command.status}"]
    if missing := differs(command.shown, printed):
        found.append(f"did not print {missing!r}")
    return [f"$ {command.line}\n{one}:\n{printed}" for one in found]


if __name__ == "__main__":
    _page, _shell = Path(sys.argv[1]).read_text(encoding="utf-8"), Shell(Path(sys.argv[2]), wheel=Path(sys.argv[3]))
    for command, printed, status in _shell.play(_page):
        print(f"$ {command.line}\n{printed}[{status}]", flush=True)
        for problem in problems(command, printed, status):
            print("*** " + problem.replace(f":\n{printed}", ""), flush=True)
