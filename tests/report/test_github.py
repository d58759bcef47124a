"""Annotations and the job's summary, as GitHub's own runner reads them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, FindingId, Result
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.github import append_summary, commands
from pytest_mnnquant.report.model import BaselineReport, Report
from pytest_mnnquant.report.record import reported
from tests.golden_text import check_golden
from tests.report.made import record


def report(*findings: Finding, file: str | None = None, **more: Any) -> Report:
    one = dataclasses.replace(record(Result.from_findings("params", findings)), file=file)
    return build_report([one], {}, **more)


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """A command as the runner takes it apart: kind, properties, message."""
    found = re.fullmatch(r"::(\w+) ((?:[^:,=]+=[^:,]*,?)+)::(.*)", line)
    assert found is not None, line
    properties = dict(part.split("=", 1) for part in found[2].split(","))
    return found[1], {key: unquote(value) for key, value in properties.items()}, unquote(found[3])


def test_an_error_names_file_rule_layer_and_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    root = Finding("MNQ304", "100% is not there", "conv", Cause("renamed", "renamed"), "rename it")
    (line,) = commands(report(root, file=str(tmp_path / "模型" / "net, v1:a.onnx")))
    kind, properties, message = parsed(line)
    assert (kind, properties) == ("error", {"file": "模型/net, v1:a.onnx", "title": "MNQ304 params-name-mismatch"})
    check_golden("report-github/an-error", message)
    assert "conv: 100%25" in line
    assert [line.count(encoded) for encoded in ("%0A", "\n")] == [3, 0]
    assert "file=模型/net%2C v1%3Aa.onnx,title=" in line


def test_a_file_outside_of_the_repository_is_not_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "repository"))
    for file in (str(tmp_path / "net.onnx"), None):
        assert [parsed(line)[1] for line in commands(report(Finding("MNQ304", "x"), file=file))] == [
            {"title": "MNQ304 params-name-mismatch"}
        ]


def test_consequences_are_not_told_and_warnings_once_a_rule() -> None:
    effect = Finding("MNQ401", "is float", follows=FindingId("MNQ304", "params"))
    warnings = [Finding("MNQ804", f"uuids differ {number}") for number in range(3)]
    found = [parsed(line)[:2] for line in commands(report(effect, Finding("MNQ304", "x"), *warnings))]
    assert [(kind, told["title"][:6]) for kind, told in found] == [("error", "MNQ304"), ("warning", "MNQ804")]


def test_github_shows_ten_and_is_told_how_many_more() -> None:
    lines = [*commands(report(*(Finding("MNQ304", "x", f"layer{number}") for number in range(13))))]
    assert [line[:7] for line in lines] == ["::error"] * 10 + ["pytest-"]
    check_golden("report-github/more-than-ten", lines[-1])


def test_the_baseline_file_is_annotated_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    check = reported(Result.from_findings("entries", [Finding("MNQ912", "net w8: gone")]))
    baseline = BaselineReport(str(tmp_path / "mnnquant-baseline.json"), check)
    (line,) = commands(report(baseline=baseline))
    assert parsed(line)[1] == {"file": "mnnquant-baseline.json", "title": "MNQ912 baseline-stale"}
    check_golden("report-github/an-entry-of-the-baseline", parsed(line)[2])


@given(st.text(), st.text())
@example("a%0Ab", "%25\r\n")
def test_any_text_is_one_line_that_says_it(message: str, layer: str) -> None:
    (line,) = commands(report(Finding("MNQ304", message, layer)))
    assert len(re.split(r"[\r\n]", line)) == 1
    told = line.partition("::digits")[2].replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")
    assert message in told
    assert layer in told


def test_the_summary_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    before = "what another step wrote\n"
    path.write_text(before)
    assert append_summary("## 结果\n", path) == ""
    assert path.read_text(encoding="utf-8") == before + "## 结果\n"


def test_a_summary_that_can_not_be_written_is_a_line(tmp_path: Path) -> None:
    check_golden("report-github/a-summary-in-a-folder", append_summary("x", tmp_path), folder=tmp_path)
    full = tmp_path / "full.md"
    full.write_bytes(b"x" * ((1 << 20) - 10))
    check_golden("report-github/a-summary-that-is-too-long", append_summary("x" * 11, full), path=full)
    assert full.stat().st_size == (1 << 20) - 10
