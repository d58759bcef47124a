"""The Chinese pages say what the English ones say, section by section: headings, commands, figures, links, names."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.rule import Severity
from tests.conftest import ROOT
from tests.docs.conftest import page

PAIRS = {
    "README.md": "README.zh-CN.md",
    "docs/index.md": "docs/zh/index.md",
    "docs/tutorial.md": "docs/zh/tutorial.md",
    "docs/faq.md": "docs/zh/faq.md",
    "docs/llm.md": "docs/zh/llm.md",
    "docs/rules/README.md": "docs/zh/rules.md",
}
SEVERITIES = {Severity.ERROR: "错误", Severity.WARNING: "警告", Severity.GAP: "缺证据"}
_BLOCK = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Lines that are there for readers of the other language.
_OTHERS = re.compile(r"^(English \||\[English\]|中文: |English: ).*$", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """A heading's level and what stands below it, up to the next."""

    level: int
    title: str
    blocks: tuple[str, ...]
    rows: int
    figures: Counter[str]
    names: Counter[str]
    links: Counter[str]


def sections(name: str) -> list[Section]:
    """The sections of a page."""
    text = _OTHERS.sub("", page(name))
    kept = [found[0] for found in _BLOCK.finditer(text)]
    text = _BLOCK.sub("\0", text)
    parts = re.split(r"^(#+) (.*)$", text, flags=re.MULTILINE)
    found = []
    for level, title, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        blocks, kept = kept[: body.count("\0")], kept[body.count("\0") :]
        body = f"{title}\n{body}"
        links = [_english(name, link) for link in re.findall(r"\]\(([^)]+)\)", body)]
        prose = re.sub(r"\]\([^)]+\)", "]", body)
        names = [" ".join(name.split()) for name in re.findall(r"`([^`]+)`", prose)]
        figures = _NUMBER.findall(re.sub(r"`[^`]+`", "", prose))
        rows = len(re.findall(r"^\|", body, re.MULTILINE))
        found.append(Section(len(level), title, tuple(blocks), rows, Counter(figures), Counter(names), Counter(links)))
    return found


def _english(name: str, link: str) -> str:
    """A link as the English page has it: the page that it means, from the root."""
    if link.startswith("https:"):
        return link
    place, _, anchor = link.partition("#")
    target = ((ROOT / name).parent / place).resolve().relative_to(ROOT) if place else Path(name)
    known = {chinese: english for english, chinese in PAIRS.items()}
    return f"{known.get(str(target), target)}#{anchor}"


@pytest.mark.parametrize(("english", "chinese"), PAIRS.items())
def test_pages_are_in_step(english: str, chinese: str) -> None:
    ours, theirs = sections(english), sections(chinese)
    assert [one.level for one in ours] == [one.level for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        where = f"{one.title} / {other.title}"
        assert one.blocks == other.blocks, where
        assert one.rows == other.rows, where
        assert one.figures == other.figures, where
        assert one.names == other.names, where
        assert one.links == other.links, where


@pytest.mark.parametrize("chinese", PAIRS.values())
def test_they_are_chinese(chinese: str) -> None:
    prose = re.sub(r"`[^`]*`", "", _BLOCK.sub("", page(chinese)))
    letters, signs = len(re.findall("[A-Za-z]", prose)), len(re.findall("[\u4e00-\u9fff]", prose))
    assert signs > 200
    assert signs > letters / 3


@pytest.mark.parametrize("chinese", PAIRS.values())
def test_paragraphs_are_one_line(chinese: str) -> None:
    """A line break between Chinese signs is shown as a blank."""
    plain = r"(?![-*|#<`\s\[]|\d+\. )"
    assert re.findall(rf"^{plain}.+\n{plain}.+$", _BLOCK.sub("", page(chinese)), re.MULTILINE) == []


def test_every_rule_has_its_line_with_name_and_severity() -> None:
    line = re.compile(r"^- \[(MNQ\d+)\]\(../rules/\1\.md\) (\S+)\uff0c(\S+?)\uff1a\S", re.MULTILINE)
    lines = line.findall(page("docs/zh/rules.md"))
    assert lines == [(code, RULES[code].name, SEVERITIES[RULES[code].severity]) for code in sorted(RULES)]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("3.38x smaller", "3.39x smaller"),
        ("320", "32"),
        ("`build.sh`", "`make.sh`"),
        ("## ", "### "),
        ("MNQ304.md", "MNQ305.md"),
    ],
)
def test_a_page_that_fell_behind_is_found(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = page
    changed = read("docs/zh/tutorial.md").replace(right, wrong, 1)
    assert changed != read("docs/zh/tutorial.md")

    def other(name: str) -> str:
        return changed if name == "docs/zh/tutorial.md" else read(name)

    monkeypatch.setattr("tests.docs.test_chinese.page", other)
    with pytest.raises(AssertionError):
        test_pages_are_in_step("docs/tutorial.md", "docs/zh/tutorial.md")
