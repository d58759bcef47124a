"""A page that is wrong is found: a file, a status, a line, its order, a figure that does not move."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.book import Shell, blocks, commands, differs, problems

PAGE = """
```python title="hello.py"
print("5 of 5 layers, 54,428 bytes, 3.38x smaller, 0.91 s")
print("----------- end")
raise SystemExit(3)
```

<!-- exit 3 -->
```console
$ true  # a remark
$ python3 \\
    hello.py
5 of 5 layers, 54,428 bytes, 3.38x smaller, 0.55 s
...
```

<!-- in below, exit 3 -->
```console
$ python3 ../hello.py
...
```

<!-- not run: it would never end -->
```console
$ sleep 9999
```
"""


def test_a_page_is_played(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    played = list(Shell(tmp_path).play(PAGE))
    typed = [("true", 0), ("python3 \\\n    hello.py", 3), ("python3 ../hello.py", 3)]
    assert [(command.line, status) for command, _, status in played] == typed
    assert [problem for one in played for problem in problems(*one)] == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("<!-- exit 3", "<!-- exit 1"),
        ("54,428 bytes, 3.38x smaller, 0.55", "54,429 bytes, 3.38x smaller, 0.55"),
        ("3.38x smaller, 0.55", "3.39x smaller, 0.55"),
        ("5 of 5 layers, 54,428 bytes, 3.38x smaller, 0.55", "4 of 5 layers, 54,428 bytes, 3.38x smaller, 0.55"),
        ("0.55 s\n...", "0.55 s\nend"),
        ("$ true", "$ false"),
    ],
)
def test_what_is_wrong_on_a_page_is_told(right: str, wrong: str, tmp_path: Path) -> None:
    assert right in PAGE
    (tmp_path / "below").mkdir()
    played = list(Shell(tmp_path).play(PAGE.replace(right, wrong, 1)))
    assert len([problem for one in played for problem in problems(*one)]) == 1


def test_lines_are_printed_in_order_and_together() -> None:
    printed = "one\ntwo\nthree\n"
    assert differs(["one", "two", "three"], printed) == ""
    assert differs(["one", "two", "..."], printed) == ""
    assert differs(["one", "two"], printed) != ""
    assert differs([], printed) == ""
    assert differs(["...", "two", "three"], printed) == ""
    assert differs(["two", "one"], printed) == "two"
    assert differs(["one", "three"], printed) == "three"
    assert differs(["one", "...", "three"], printed) == ""


def test_folders_of_a_run_and_figures_that_move_are_not_compared() -> None:
    shown = ["  see .../.pytest_cache/d/repaired/.../x.bin", "== 3 passed in 0.21s =="]
    assert differs(shown, "  see /a/b/.pytest_cache/d/repaired/1f/x.bin\n=== 3 passed in 17s ===\n") == shown[1]
    assert differs(shown, "  see /a/b/.pytest_cache/d/repaired/1f/x.bin\n== 3 passed in 17s ==\n") == ""
    assert differs(shown[1:], "== 4 passed in 17s ==") == shown[1]


def test_commands_of_a_block_keep_their_output_apart() -> None:
    (block,) = list(blocks("```console\n$ a\nb\n$ c\n```\n"))
    assert [(one.line, one.shown) for one in commands(block)] == [("a", ("b",)), ("c", ())]
