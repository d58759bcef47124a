"""Names from files are escaped at every outlet: they move no cursor, break no XML, and are no commands of GitHub."""

from __future__ import annotations

import json

import pytest

from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.failure import failure_text
from pytest_mnnquant.report.formats import FORMATS, Destination
from pytest_mnnquant.report.model import Report
from pytest_mnnquant.report.properties import properties
from pytest_mnnquant.report.terminal import summary_lines
from pytest_mnnquant.report.width import shown
from tests.report.made import record

HOSTILE = (
    "a\x1b[2Jb",
    "a\nverdict: ok",
    "a\r\nb",
    "::error::spoof",
    "x ::stop-commands::y",
    "##[group]x",
    "a\x00b",
    "a\u202eb",
    "a\u2028b",
    "\ud800",
    "\x9b31m",
    "]]>",
    "<script>alert(1)</script>",
    "@someone `x` **b** [l](u)",
    "\ufffe",
)


def result_with(name: str) -> Result:
    """A failed check that names this everywhere."""
    finding = Finding("MNQ401", f"{name} is wrong", layer=name, fix=f"change {name}")
    return Result.from_findings("coverage", [finding])


def report_with(name: str) -> Report:
    """A report in which everything that files can name has this name."""
    return build_report([record(result_with(name), model=name)], {"MNN": "3.6.1"}, strict=False)


@pytest.mark.parametrize("name", HOSTILE)
def test_only_what_can_be_printed_reaches_the_terminal(name: str) -> None:
    lines = [line for line, _ in summary_lines(report_with(name), 1, 80)]
    lines += failure_text("net int8", result_with(name)).split("\n")
    for line in lines:
        assert line.isprintable(), line
        assert not line.lstrip().startswith("::"), line
        assert "##[" not in line, line


@pytest.mark.parametrize("name", HOSTILE)
def test_every_format_can_be_written_and_read(name: str) -> None:
    report = report_with(name)
    for known in FORMATS:
        if known.destination is Destination.TEST_PROPERTIES or known.suffix == ".html":
            continue
        text = known.render(report).encode("utf-8", "backslashreplace").decode("utf-8")
        if known.suffix == ".json":
            assert json.loads(text)["models"]
        if known.destination is Destination.JOB_LOG:
            lines = text.rstrip("\n").split("\n")
            assert all(line.startswith(("::error ", "::warning ", "pytest-mnnquant: ")) for line in lines), lines
        if known.suffix == ".md":
            assert "<script>" not in text
            assert "\x1b" not in text


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_properties_are_names_in_xml(name: str) -> None:
    (model,) = report_with(name).models
    for variant in model.variants:
        for check in variant.checks:
            assert all(key.isprintable() for key, _ in properties(model.name, variant, check))


def test_commands_of_github_in_names_are_escaped() -> None:
    assert shown("::error::x") == "\\x3a:error::x"
    assert shown("##[group]x") == "##\\x5bgroup]x"
    assert shown("net.py:build::int8") == "net.py:build::int8"
