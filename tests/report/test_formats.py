"""The table of formats: each module can be loaded and renders, and only what needs charts asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.formats import (
    FORMATS,
    Destination,
    Format,
    file_format,
    formats_for,
    needs_charts,
    properties_of_test,
    require_format,
)
from tests.report.made import record

RECORD = record(Result.from_findings("coverage", [Finding("MNQ401", "is float", "conv")]))


@pytest.mark.parametrize(
    "known", [one for one in FORMATS if one.destination is not Destination.TEST_PROPERTIES], ids=repr
)
def test_each_format_renders_a_report(known: Format) -> None:
    assert "MNQ401" in known.render(build_report([RECORD], {}))


def test_properties_of_a_test_are_a_format_too() -> None:
    assert dict(properties_of_test("digits", RECORD.variant, RECORD.check))["mnn.rules"] == "MNQ401"


def test_every_destination_has_a_format() -> None:
    assert all(list(formats_for(destination)) for destination in Destination)


def test_a_report_file_is_written_by_its_suffix() -> None:
    assert {suffix: file_format(Path(f"r{suffix}")).module for suffix in (".json", ".md", ".html")} == {
        ".json": "json_report",
        ".md": "markdown",
        ".html": "html",
    }
    for name in ("r.htm", "r", ".html", "r.HTML"):
        with pytest.raises(ValueError, match=r"--mnn-report: .*\.json, \.md, \.html"):
            require_format(Path(name))


def test_only_a_format_with_charts_needs_their_samples() -> None:
    assert needs_charts([Path("r.json"), Path("deep/r.html")])
    assert not needs_charts([Path("r.json"), Path("r.md"), Path("r.html.json")])
    assert not needs_charts([])
