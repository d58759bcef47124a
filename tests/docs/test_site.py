"""The site is built strictly, needs no network to be read, and finds words in English and Chinese."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; links to pages and anchors that are not there are errors."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_a_broken_link_or_anchor_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[here](#there)\n")
    settings = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[0].split("\nnot_in_nav:")[0]
    (tmp_path / "mkdocs.yml").write_text(settings)
    build = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 1
    assert "there" in built.stderr


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 90
    loads = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^\s"'>]+""")
    assert {path.name: found for path in pages if (found := loads.findall(path.read_text(encoding="utf-8")))} == {}


def test_its_own_styles_load_nothing_from_elsewhere(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    assert [path for path in styles if re.search(r"(?:@import|url\()\s*[\"']?https?:", path.read_text())] == []


def test_it_can_be_searched_in_both_languages(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert index["config"]["lang"] == ["en", "zh"]
    text = " ".join(entry["text"] for entry in index["docs"])
    assert "params-name-mismatch" in text
    assert "校准" in re.split(r"[\s\u200b]+", text)  # Cut into words.
