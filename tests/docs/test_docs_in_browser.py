"""The tool that opens the documentation in a browser finds what a reader would stumble over."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.browser import LAPTOP, PHONE, Page, needs_chromium
from tests.conftest import ROOT

SOUND = """<!doctype html><html lang="en"><title>Page</title><meta name="viewport" content="width=device-width">
<main><h1 id="top">Page</h1><a href="other.html#here">other</a> <a href="https://example.org/x">outside</a>
<img src="dot.svg" alt="a dot"></main></html>"""
#: What is added to the page, and a part of what is said of it.
PLANTED = {
    "missing page": ('<a href="gone.html">gone</a>', "gone.html: no such file"),
    "missing anchor": ('<a href="other.html#there">there</a>', "other.html#there: no such anchor"),
    "missing picture": ('<img src="gone.svg" alt="gone">', "gone.svg"),
    "too wide": ('<div style="width: 3000px">wide</div>', "sideways"),
    "no label": ("<input>", "axe"),
}


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_in_browser", ROOT / "tools" / "docs_in_browser.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "other.html").write_text('<!doctype html><title>Other</title><h1 id="here">Other</h1>')
    (tmp_path / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    return tmp_path


@needs_chromium
@pytest.mark.parametrize("size", [PHONE, LAPTOP])
def test_a_sound_page_has_no_problems(size: tuple[int, int], folder: Path, browser: Page) -> None:
    tool = _loaded()
    (folder / "page.html").write_text(SOUND)
    browser.open(folder / "page.html", size)
    assert tool.problems(browser, tool.Anchors()) == []


@needs_chromium
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_problem_is_found(name: str, folder: Path, browser: Page) -> None:
    tool = _loaded()
    added, said = PLANTED[name]
    (folder / "page.html").write_text(SOUND.replace("</main>", f"{added}</main>"))
    browser.open(folder / "page.html", PHONE)
    (problem,) = tool.problems(browser, tool.Anchors())
    assert said in problem


def test_the_readme_is_a_page_with_its_pictures_and_links(tmp_path: Path) -> None:
    text = _loaded().render_readme("README.md", tmp_path).read_text(encoding="utf-8")
    assert 'src="docs/images/failing-light.svg"' in text
    assert 'href="docs/recipes.md"' in text
    assert "<table>" in text
