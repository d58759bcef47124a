"""The golden texts: each entry is held by a test, and a changed, missing or left-over one fails."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import golden_text
from tests.conftest import TESTS
from tests.golden_text import MESSAGES, check_golden, format_entries, read_entries, without_numbers

FAMILIES = sorted(MESSAGES.glob("*.txt"))


@pytest.fixture
def messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(golden_text, "MESSAGES", tmp_path)
    monkeypatch.setattr(golden_text, "_written", {})
    monkeypatch.delenv(golden_text.WRITE, raising=False)
    return tmp_path


def write(monkeypatch: pytest.MonkeyPatch, key: str, text: str, **values: object) -> None:
    with monkeypatch.context() as context:
        context.setenv(golden_text.WRITE, "1")
        check_golden(key, text, **values)


def test_an_entry_is_written_once_and_compared_from_then_on(messages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(monkeypatch, "size/large", "12 bytes\n\n  in a", folder="in")
    write(monkeypatch, "size/a", "1 byte")
    assert (messages / "size.txt").read_text() == "a\n    1 byte\n\nlarge\n    12 bytes\n\n      <folder> a\n"
    check_golden("size/large", "12 bytes\n\n  at a", folder="at")
    with pytest.raises(AssertionError, match="two texts"):
        write(monkeypatch, "size/a", "2 bytes")


def test_another_text_and_a_missing_entry_fail(messages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="no entry size/a"):
        check_golden("size/a", "1 byte")
    write(monkeypatch, "size/a", "1 byte")
    with pytest.raises(AssertionError, match=r"(?s)size/a.*- 1 byte\n\+ 1 bytes"):
        check_golden("size/a", "1 bytes")


@pytest.mark.parametrize("key", ["size", "size/a b", "Size/a", "../a"])
def test_keys_are_a_family_and_a_name(key: str) -> None:
    with pytest.raises(AssertionError, match="family/name"):
        check_golden(key, "")


_LINES = st.lists(st.text(st.characters(exclude_categories=["C", "Z"])) | st.just("  a b "), min_size=1)


@given(st.dictionaries(st.from_regex(r"[^\s/]+", fullmatch=True), _LINES.map("\n".join).map(lambda t: t.strip("\n"))))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("family") / "family.txt"
    path.write_text(format_entries(entries), encoding="utf-8", newline="")
    assert read_entries(path) == entries


def test_numbers_are_blanked_and_names_are_not() -> None:
    text = "1,234.5 of 6, (12%), 1.2e-05; int8, w4b32, MNQ401, /conv1/Conv_output_0"
    assert without_numbers(text) == "N of N, (N%), N; int8, w4b32, MNQ401, /conv1/Conv_output_0"


def _patterns(path: Path) -> Iterator[re.Pattern[str]]:
    """What a module calls golden entries: literals, and f-strings whose values are literals of the same module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [*ast.walk(tree)]
    literals = {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    values = "|".join(re.escape(text) for text in sorted(literals) if text and not re.search(r"[\s/]", text))
    families = tuple(f"{family.stem}/" for family in FAMILIES)
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
            if isinstance(parts[0], str) and parts[0].startswith(families):
                yield re.compile("".join(f"(?:{values})" if part is None else re.escape(str(part)) for part in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(families):
            yield re.compile(re.escape(node.value))


def test_each_entry_is_held_by_a_test() -> None:
    patterns = [pattern for path in sorted(TESTS.rglob("*.py")) for pattern in _patterns(path)]
    keys = [f"{family.stem}/{name}" for family in FAMILIES for name in read_entries(family)]
    assert [key for key in keys if not any(pattern.fullmatch(key) for pattern in patterns)] == []


def test_each_call_has_its_entry() -> None:
    """Of those in tests that `make quick` does not run, too."""
    calls = (
        node.args[0].value
        for path in TESTS.rglob("*.py")
        if path.name != "test_golden_text.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check_golden"
        if isinstance(node.args[0], ast.Constant)
    )
    keys = {f"{family.stem}/{name}" for family in FAMILIES for name in read_entries(family)}
    assert sorted({*map(str, calls)} - keys) == []


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: str(path.stem))
def test_files_are_as_they_are_written(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == format_entries(read_entries(path))
