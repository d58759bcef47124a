"""The language check finds every phrase of the style's table, in code and in pages, and nothing else."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("language_check", ROOT / "tools" / "language_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look up their module.
    spec.loader.exec_module(module)
    return module


CHECK = _loaded()

#: A sentence for each phrase of the style's table.
PLANTED = (
    "the user is told of it",
    "the trace tells which",
    "8 bits were asked for",
    "at least 99 % wanted",
    "convert it anew",
    "try once more",
    "one scale a channel",
    "one test an aspect",
    "this is no model",
    "there is no place there",
    "a metric of one's own",
    "a fault of ours",
    "a name of theirs",
    "how to mend it",
    "this is mended by a flag",
    "mends the layer",
    "its healthy twin",
    "twins of the fault",
    "who is accused",
    "it accuses the layer",
    "so for 7 more of 8 tensors",
    "and 3 more of the same",
    "params, hence coverage",
    "so: coverage failed",
    "it runs elsewhere",
    "if this is meant to be, accept it",
    "it shall stay float",
    "MNN keeps the layer as it is",
    "pooled as ARM does",
    "likeness to the float model",
    "the next rung",
    "a ladder of bits",
    "whoever asks",
    "nobody reads it",
    "somebody made it",
    "layers that the same befell",
    "judged is what ARM computes",
    "so many samples",
)
PLAIN = (
    "The report lists 7 other layers. MNN keeps the layer float. It tells you which.",
    "Its file is no larger than required, so the check passes.",
    "one scale per channel, one test per check, a healthy counterpart",
)
#: How a phrase may stand in a file: a string, an f-string, a docstring, a comment; prose, output, a help text.
IN_CODE = (
    'MESSAGE = "{}"\n',
    'MESSAGE = f"{{layer}}: {}"\n',
    '"""What the module does.\n\n{}\n"""\n',
    "VALUE = 1  # {}\n",
)
IN_PAGES = ("# Page\n\n{}\n", "```text\nnet int8: coverage failed\n    {}\n```\n", "- label: {}\n")


def hits(path: str, text: str) -> list[tuple[int, str]]:
    return [(hit.line, hit.pattern) for hit in CHECK.hits_of(path, text)]


def planted(forms: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each phrase in each form. `so:` is a label only at the start of its line."""
    return [
        (phrase, form)
        for phrase in PLANTED
        for form in forms
        if not phrase.startswith("so: ") or re.search(r"(^|[\"#])\W*\{\}", form, re.MULTILINE)
    ]


@pytest.mark.parametrize(("phrase", "form"), planted(IN_CODE))
def test_a_phrase_in_code_is_found(phrase: str, form: str) -> None:
    source = form.format(phrase)
    numbers = {line for line, _ in hits("net.py", source)}
    assert numbers == {next(n for n, line in enumerate(source.splitlines(), 1) if phrase in line)}


@pytest.mark.parametrize(("phrase", "form"), planted(IN_PAGES))
def test_a_phrase_on_a_page_is_found(phrase: str, form: str) -> None:
    source = form.format(phrase)
    numbers = {line for line, _ in hits("docs/page.md", source)}
    assert numbers == {next(n for n, line in enumerate(source.splitlines(), 1) if phrase in line)}


def test_every_pattern_has_a_planted_phrase() -> None:
    assert {pattern for phrase in PLANTED for _, pattern in hits("page.md", phrase)} == set(CHECK.PATTERNS)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_english_passes(text: str) -> None:
    assert hits("page.md", text) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("net.py", "told = wanted.asked(anew)\n"),
        ("net.py", 'message = f"{told}: {layer.wanted} % required"\n'),
        ("net.py", '"""The field `wanted` says so."""\n'),
        ("page.md", "The key `told` stays, and so does `as_it_is()`.\n"),
    ],
)
def test_code_is_not_read(path: str, text: str) -> None:
    assert hits(path, text) == []


def project(folder: Path, exceptions: str) -> Path:
    """A small project with one hit in each kind of file."""
    files = {
        "pytest_mnnquant/check.py": '"""Says what is wanted."""\n',
        "pytest_mnnquant/report.html": "<p>Layers, told by name</p>\n",
        "README.md": "# Title\n\nIt tells all.\n",
        "docs/rules/MNQ001.md": "How to mend it\n",
        "docs/zh/index.md": "told\n",
        "tests/test_net.py": '"""What is asked."""\n',
        ".github/ISSUE_TEMPLATE/bug.yml": "label: What was asked\n",
        CHECK.EXCEPTIONS: exceptions,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_files_that_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert CHECK.main([], project(tmp_path, "")) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == [
        ".github/ISSUE_TEMPLATE/bug.yml:1",
        "README.md:3",
        "docs/rules/MNQ001.md:1",
        "pytest_mnnquant/check.py:1",
        "pytest_mnnquant/report.html:1",
    ]
    assert lines[-1] == "5 hits in 5 files"


def test_exceptions_excuse_the_lines_that_they_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    excused = "# PATH: TEXT: REASON\nREADME.md: It tells all: a quotation\n"
    assert CHECK.main([], project(tmp_path, excused)) == 1
    assert "README.md" not in capsys.readouterr().out


def test_an_exception_that_matches_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path, "README.md: It shows all: a quotation\n")
    for path in [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".txt"]:
        path.write_text("", encoding="utf-8")
    assert CHECK.main([], folder) == 1
    out = capsys.readouterr().out
    assert re.search(r"^tools/language_exceptions\.txt: README\.md: .* matches nothing", out, re.MULTILINE)
    assert "0 hits" in out


def test_an_exception_needs_a_reason(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        CHECK.main([], project(tmp_path, "README.md: It tells all\n"))


def test_counts_are_per_pattern_and_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert CHECK.main(["--count"], project(tmp_path, "")) == 1
    counted = [line.split() for line in capsys.readouterr().out.splitlines()[:-1]]
    assert ["2", "pytest_mnnquant"] in counted
