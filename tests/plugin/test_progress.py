"""On a terminal one line says what is being done; when it is gone, pytest's own lines are as ever."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.report.width import width
from tests.plugin.conftest import NET, Files, of_nobody

COLUMNS = 70


def on_a_terminal(folder: Path, *args: str) -> str:
    """All that pytest writes to a terminal of 70 columns."""
    main, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *args]
    process = subprocess.Popen(command, cwd=folder, stdout=child, stderr=child, env={**of_nobody(), "TERM": "xterm"})
    os.close(child)
    parts = []
    while True:
        try:
            part = os.read(main, 1 << 16)
        except OSError:  # The other end is closed.
            break
        if not part:
            break
        parts.append(part)
    os.close(main)
    assert process.wait(60) == 0
    return b"".join(parts).decode()


def screen(written: str) -> list[str]:
    """What a terminal shows in the end. It breaks a line when a character comes that the row has no room for."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for token in re.findall(r"\x1b\[\d*[A-Za-z]|.|\n|\r", written, re.DOTALL):
        if token == "\n":
            row += 1
        elif token == "\r":
            column = 0
        elif token == "\x1b[K":
            del rows[row][column:]
        elif token == "\x1b[A":
            row, column = row - 1, min(column, COLUMNS - 1)
        elif token.startswith("\x1b") and token.endswith("C"):
            column = min(column + int(token[2:-1]), COLUMNS - 1)
        else:
            assert not token.startswith("\x1b"), token
            cells = [token, ""][: width(token)]  # The second column of a wide character.
            if column + len(cells) > COLUMNS:
                row, column = row + 1, 0
            rows += [[] for _ in range(row + 1 - len(rows))]
            rows[row] += [" "] * (column - len(rows[row]))
            rows[row][column : column + len(cells)] = cells
            column += len(cells)
        rows += [[] for _ in range(row + 1 - len(rows))]
    return ["".join(cells).rstrip() for cells in rows]


@pytest.mark.parametrize("verbose", [False, True])
def test_the_line_says_what_is_done_and_is_gone_in_the_end(
    files: Files, store: Store, tmp_path: Path, verbose: bool
) -> None:
    (tmp_path / "net.py").write_text(NET)
    args = ["--mnn-model=net.py:build", "--mnn-recipe=w8", "-k", "size or execution", f"--mnn-cache-dir={store.root}"]
    written = on_a_terminal(tmp_path, *args, *(["-v"] if verbose else []))
    drawn = re.findall(r"  (net [^\r\n]*), \d+ s(?=[\r\n])", written)
    firsts = [line for number, line in enumerate(drawn) if line not in drawn[:number]]
    assert firsts[0].startswith("net loading")
    assert {"net exporting", "net w8: running"} <= {" ".join(line.split()[:3]).removesuffix(" and") for line in firsts}
    lines = screen(written)
    assert not [line for line in lines if "running" in line or "loading" in line]
    if verbose:
        assert [" ".join(line.split()[:2]) for line in lines if line.startswith("net.py:")] == [
            "net.py:build::w8::execution PASSED",
            "net.py:build::w8::size PASSED",
        ]
    else:
        assert [line.split() for line in lines if line.startswith("net.py:")] == [["net.py:build", "..", "[100%]"]]
    assert all(len(line) < COLUMNS for line in drawn)
    assert "(2 passed)" in next(line for line in lines if line.startswith("net: ok"))


def test_lines_that_pytest_writes_over_the_right_edge_stay_whole(store: Store, tmp_path: Path) -> None:
    """Ids that end before the edge, at it and behind it, and one where a wide character has no room in a row."""
    (tmp_path / "net.py").write_text(NET)
    end = "::w8::size"
    names = ["a", *("d" * (COLUMNS + more - len(end)) for more in (-2, -1, 0, 1, 30)), "d" + "手写数字识别" * 6]
    models = [f"--mnn-model={name}=net.py:build" for name in names]
    args = [*models, "--mnn-recipe=w8", "-k", "size", f"--mnn-cache-dir={store.root}"]
    written = on_a_terminal(tmp_path, *args, "-v")
    assert "a loading the" in written
    text = re.sub(r"\s|\[ *\d+%\]", "", "".join(screen(written)))
    assert "".join(f"{name}{end}PASSED" for name in names) in text
