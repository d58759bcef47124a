"""Every rule has a page in the one form, and the index lists them all."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from pytest_mnnquant.findings.catalogue import ALL_NAMES, NOT_IGNORABLE, RULES

ROOT = Path(__file__).resolve().parent.parent
FOLDER, WIDTH = ROOT / "docs" / "rules", 80
HEADINGS = ["## Why it happens", "## See it yourself", "## Fix it", "## In our output"]
#: Words that would name the place where the pages were written.
PLACES = re.compile(r"/(work|home|root|tmp)/|pytest-of-")
MOST_LINES = 16


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """benchmarks/rule_pages.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("rule_pages", ROOT / "benchmarks" / "rule_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(code: str) -> str:
    return (FOLDER / f"{code}.md").read_text(encoding="utf-8")


def excerpt(code: str) -> list[str]:
    """The lines of what the page shows of our output."""
    found = re.search(r"\n## In our output\n```text\n(.*)\n```\n$", page(code), re.DOTALL)
    assert found is not None
    return found[1].split("\n")


def prose(code: str) -> list[str]:
    """The lines outside of blocks of code."""
    return re.sub(r"```.*?```", "", page(code), flags=re.DOTALL).split("\n")


def test_there_is_a_page_for_each_rule_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {*RULES, "README"}


def test_the_index_is_what_the_script_writes(script: ModuleType) -> None:
    assert script.FOLDER == FOLDER
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == script.index()


def test_every_chapter_has_a_title(script: ModuleType) -> None:
    assert {code[3] for code in RULES} <= script.CHAPTERS.keys()


@pytest.mark.parametrize("code", RULES)
def test_the_head_says_what_the_catalogue_says(code: str) -> None:
    rule = RULES[code]
    first, empty, second, *_ = page(code).split("\n")
    assert first == f"# {code} {rule.name}"
    assert not empty
    checks = "|".join([f"the check `({'|'.join(ALL_NAMES)})`", "the checks .*", "every check.*"])
    assert re.fullmatch(f"{rule.severity.value}, reported by ({checks}), since {re.escape(rule.since)}", second)


@pytest.mark.parametrize("code", RULES)
def test_the_headings_are_there_in_order_with_something_below(code: str) -> None:
    text = page(code)
    assert re.findall("^##+ .*$", text, re.MULTILINE) == HEADINGS
    for body in re.split("^##+ .*$", text, flags=re.MULTILINE):
        assert len(body.strip()) > 20


@pytest.mark.parametrize("code", [*RULES, "README"])
def test_no_line_is_wider_than_a_terminal(code: str) -> None:
    wide = [line for line in page(code).split("\n") if len(line) > WIDTH]
    # What can't be broken stays whole.
    assert [line for line in wide if " " in line.strip().removeprefix("- ")] == []


@pytest.mark.parametrize("code", RULES)
def test_pages_are_plain(code: str) -> None:
    text = page(code)
    assert not PLACES.search(text)
    assert text.count("```") % 2 == 0
    for line in prose(code):
        bare = re.sub("`[^`]*`", "", line)
        assert not re.search(r"<[a-z/!]|^\|", bare), line


@pytest.mark.parametrize("code", RULES)
def test_our_output_is_short_and_names_the_rule(code: str) -> None:
    lines = excerpt(code)
    assert len(lines) <= MOST_LINES
    assert f"{code} {RULES[code].name}" in "\n".join(lines)


@pytest.mark.parametrize("code", RULES)
def test_every_rule_that_is_named_exists_and_no_page_ignores_what_can_not_be(code: str) -> None:
    text = page(code)
    assert set(re.findall(r"\bMNQ\d{3}\b", text)) <= RULES.keys()
    if code in NOT_IGNORABLE:
        assert f"{code} can't be ignored" in text
        assert f"--mnn-ignore={code}" not in text
