"""Pages against what they speak of: rules, options, settings, and each other."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import markdown
import pytest
import yaml
from pymdownx.slugs import slugify

from pytest_mnnquant.findings.catalogue import BASELINE, CHECK_NAMES, RULES
from pytest_mnnquant.recipes.names import without_mode
from tests.conftest import ROOT
from tests.docs.book import blocks, commands, plain
from tests.docs.conftest import DOCS, page

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OUTSIDE = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "examples").rglob("README.md"))]
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name != "rules"]
ALL = [*OUTSIDE, *PAGES]
#: Words that would name the place where the pages were written.
PLACES = re.compile(r"/(work|home|root|tmp)/|pytest-of-")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(path: Path) -> set[str]:
    """What a link may point to in a page: its headings, as the site and GitHub number them."""
    rendered = markdown.markdown(
        path.read_text(encoding="utf-8"),
        extensions=["toc", "fenced_code"],
        extension_configs={"toc": {"slugify": slugify(case="lower")}},
    )
    return set(re.findall(r'<h\d id="([^"]+)"', rendered))


@pytest.mark.parametrize("path", OUTSIDE, ids=named)
def test_links_of_pages_outside_of_the_site(path: Path) -> None:
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("https://"):
            continue
        place, _, anchor = unquote(link).partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", ALL, ids=named)
def test_every_rule_that_is_named_exists(path: Path) -> None:
    assert set(re.findall(r"\bMNQ\d{3}\b", path.read_text(encoding="utf-8"))) <= RULES.keys() | {"MNQ805"}


@pytest.mark.parametrize("path", ALL, ids=named)
def test_no_page_names_a_place_of_ours(path: Path) -> None:
    assert not PLACES.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", ALL, ids=named)
def test_settings_that_are_shown_can_be_read(path: Path) -> None:
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)
        elif block.language == "python":
            compile(block.text, str(path), "exec")


def test_how_it_decides_asks_every_check_and_names_every_rule() -> None:
    text = page("docs/how-it-decides.md")
    asked = [word for line in re.findall("^## (.*):", text, re.MULTILINE) for word in line.split(" and ")]
    assert asked == [*CHECK_NAMES, BASELINE]
    assert set(re.findall(r"\[(MNQ\d{3})\]\(rules/\1\.md\)", text)) == RULES.keys()


def test_the_first_page_counts_as_the_scoreboard_does() -> None:
    (gate,) = (row for row in rows(page("docs/scoreboard.md"), "# Scoreboard") if row[0] == "pytest-mnnquant")
    heads = page("docs/scoreboard.md").partition("| judged by |")[2].partition("\n")[0]
    listed, unlisted, healthy = map(int, re.findall(r"of (\d+)", heads))
    caught = sum(int(cell.split()[0]) for cell in gate[1:3])
    words = " ".join(page("README.md").split())
    assert f"Of {listed + unlisted} faults" in words
    assert f"found {caught} and" in words
    assert (gate[3].split()[0], f"none of {healthy} healthy" in words) == ("0", True)


def test_the_page_of_options_is_what_the_script_writes() -> None:
    assert page("docs/options.md") == script("option_page").page()


def test_the_page_of_assertions_names_all_of_them() -> None:
    import pytest_mnnquant

    public = {name for name in pytest_mnnquant.__all__ if name.startswith("assert_")}
    assert set(re.findall(r"^\| `(assert_\w+)`", page("docs/own-tests.md"), re.MULTILINE)) == public


def test_settings_of_the_guarding_page_are_the_example_s() -> None:
    (shown,) = (block.text for block in blocks(page("docs/guarding.md")) if block.language == "toml")
    assert shown == page("examples/shell-pipeline/pyproject.toml")


def functions(text: str) -> dict[str, list[str]]:
    """The statements of each function, without its docstring."""
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    texts = {node.name: [ast.unparse(statement) for statement in node.body] for node in found}
    return {name: [one for one in body if not one.startswith(("'", '"'))] for name, body in texts.items()}


def test_what_the_page_on_own_tests_shows_is_what_the_example_does() -> None:
    done: dict[str, list[str]] = {}
    for name in ("conftest.py", "metrics.py", "test_digits.py"):
        done |= functions(page(f"examples/own-tests/{name}"))
    first, *others = (block.text for block in blocks(page("docs/own-tests.md")) if block.language == "python")
    assert "test_ships_small" in functions(first)
    for text in others:
        shown = functions(text)
        assert shown
        assert shown == {name: done[name] for name in shown}


#: Pages whose commands are typed, and compared with what they print.
TYPED = ["docs/tutorial.md", "docs/calibration.md", "docs/guarding.md"]


def test_output_that_is_explained_is_output_of_a_page_that_is_typed() -> None:
    printed = [
        line
        for typed in TYPED
        for block in blocks(page(typed))
        if block.language == "console"
        for command in commands(block)
        for line in command.shown
    ]
    shown = [
        line
        for block in blocks(page("docs/reading-a-report.md"))
        if block.language == "text"
        for line in block.text.splitlines()
    ]
    assert shown
    for line in shown:
        assert any(plain(one).startswith(plain(line).removesuffix(" ...")) for one in printed), line


def test_the_readme_shows_what_make_demo_runs() -> None:
    """Its commands are not typed here: they make, and run in, the environment that these tests run in."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    make = ["make", "-n", "demo", "VENV=.venv", "READY=.ready-for-nobody"]
    made = subprocess.run(make, cwd=ROOT, env=own, capture_output=True, text=True)
    runs = " ".join(made.stdout.replace("\\\n", " ").replace("--quiet ", "").split())
    (demo,) = (block for block in blocks(page("README.md")) if "demo/plant.py" in block.text)
    for command in commands(demo):
        assert " ".join(command.line.replace("\\\n", " ").split()) in runs


def rows(text: str, mark: str) -> list[list[str]]:
    """The cells of the first table after a mark, without its head."""
    lines = text.partition(mark)[2].splitlines()
    found = itertools.takewhile(
        lambda line: line.startswith("|"), itertools.dropwhile(lambda line: line[:1] != "|", lines)
    )
    return [line.strip("| ").split(" | ") for line in found][2:]


def test_the_tables_of_targets_hold_every_fixture_and_recipe() -> None:
    """They are made by benchmarks/targets.py, which takes its time: again when a fixture or a recipe comes."""
    recipes = {without_mode(row[0]) for row in rows(page("docs/recipes-matrix.md"), "## At a glance")}
    for mark, column in (("<!-- arm -->", 1), ("<!-- older -->", 0)):
        found = [row[column] for row in rows(page("docs/targets.md"), mark)]
        assert recipes <= {without_mode(label) for labels in found for label in labels.split(", ")}, mark
    models = {path.stem for path in (ROOT / "fixtures").glob("*.py") if "def build(" in path.read_text("utf-8")}
    assert {row[0] for row in rows(page("docs/targets.md"), "<!-- arm -->")} == models
