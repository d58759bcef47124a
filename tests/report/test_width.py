"""Widths of text: Chinese is two columns wide, marks above letters none; names are never broken."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.report.width import cut, end_of, pad, shown, width, wrapped


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("abc", 3), ("量化", 4), ("é", 1), ("e\u0301", 1), ("\uff46\uff55", 4), ("ﾊﾝ", 2)]
)
def test_columns_are_counted_as_a_terminal_does(text: str, columns: int) -> None:
    assert width(text) == columns
    assert width(pad(text, 9)) == 9


@pytest.mark.parametrize(
    ("text", "column"), [("", 0), ("abcd", 4), ("abcde", 5), ("abcdef", 1), ("量化模", 2), ("ab" * 5 + "e\u0301", 1)]
)
def test_a_terminal_of_five_columns_breaks_lines(text: str, column: int) -> None:
    assert end_of(text, 5) == column


def test_a_long_name_loses_its_middle() -> None:
    assert cut("abcdefghij", 10) == "abcdefghij"
    assert cut("abcdefghijk", 10) == "abc...hijk"
    assert cut("量化模型的卷积层", 10) == "量...积层"


@given(st.text(max_size=40), st.integers(5, 40))
def test_what_is_cut_fits(text: str, columns: int) -> None:
    found = cut(text, columns)
    assert width(found) <= columns
    assert found == text or "..." in found


@given(st.lists(st.text("ab层é-/.", min_size=1, max_size=12)), st.integers(30, 90))
def test_no_word_is_broken_and_no_line_too_wide(words: list[str], columns: int) -> None:
    lines = wrapped("  why: ", " ".join(words), columns)
    assert " ".join(lines).split() == ["why:", *words]
    assert all(width(line) <= columns for line in lines)


def test_lines_of_a_text_stay_lines() -> None:
    assert wrapped("a: ", "b c\nd", 80) == ["a: b c", "      d"]


@pytest.mark.slow
def test_commands_that_take_several_lines_can_be_pasted() -> None:
    text = "do this:\npython -c 'print( \"a  b\" )' cdefgh 'i j k' lmn"
    found = wrapped("fix: ", text, 40)
    assert found == ["fix: do this:", "      python -c 'print( \"a  b\" )' \\", "      cdefgh 'i j k' lmn"]
    shell = subprocess.run("\n".join(found[1:]).replace("python -c", "printf '%s|'"), shell=True, capture_output=True)
    assert shell.stdout == b'print( "a  b" )|cdefgh|i j k|lmn|'


def test_nothing_moves_the_cursor() -> None:
    assert shown("a\x1b[2J\r\udcff量") == "a\\x1b[2J\\r\\udcff量"
