"""Header and quiet runs, reports by their endings, GitHub's summary, the baseline file in the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden_text import check_golden
from tests.plugin.conftest import Files, Run


@pytest.fixture
def two(files: Files) -> list[str]:
    """Two models of which one fails, judged by their files alone."""
    usual = [f"--mnn-model=good={files.float}", f"--mnn-model=bad={files.float}", "--mnn-recipe=w8"]
    return [*usual, "-k", "size or (bad and accuracy)", "--mnn-min-size-ratio=2", "--mnn-strict"]


def summary(lines: tuple[str, ...]) -> list[str]:
    start = next(number for number, line in enumerate(lines) if " MNN quantization " in line)
    rest = lines[start + 1 :]
    return [*rest[: next(number for number, line in enumerate(rest) if line.startswith("==="))]]


def test_quiet_is_a_verdict_for_each_model_and_the_header_is_for_the_others(run: Run, two: list[str]) -> None:
    quiet, usual = run(*two, "-q"), run(*two)
    assert "mnnquant:" not in quiet.text
    assert "models: good, bad;" in usual.text
    assert "pytest-mnnquant 0." in usual.text
    assert "::error" not in usual.text
    verdicts = ["good: ok (1 passed)", "bad: FAILED: accuracy (w8) (1 passed, 1 skipped)"]
    assert summary(quiet.lines) == verdicts
    told = summary(usual.lines)
    assert [line for line in told if line in verdicts] == verdicts
    check_golden("plugin-reports/summary", "\n".join(told))


def test_the_ending_decides_what_is_written(
    run: Run, two: list[str], refused: Callable[..., str], pytester: pytest.Pytester
) -> None:
    run(*two, "--mnn-report=r.md", "--mnn-report=r.json")
    assert re.match("## .*: FAILED\n", (pytester.path / "r.md").read_text(encoding="utf-8"))
    assert json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))["strict"] is True
    check_golden("plugin-options/another-ending", refused(*two, "--mnn-report=r.pdf").rpartition(": ")[2])


def test_a_summary_that_github_can_not_have_is_a_warning(
    run: Run, two: list[str], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path))
    found = run(*two, "--deselect", "bad::w8::accuracy")
    assert found.status == 0
    check_golden("plugin-reports/a-folder-for-githubs-summary", found.starting("WARNING: "), folder=pytester.path)


def test_listing_the_tests_writes_no_summary(
    run: Run, two: list[str], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    run(*two, "--co")
    assert not Path("summary.md").exists()


def test_the_check_of_the_baseline_file_is_in_the_report(run: Run, two: list[str], pytester: pytest.Pytester) -> None:
    (pytester.path / "b.json").write_text("no baseline")
    found = run(*two[:3], "--mnn-baseline=b.json", "-k", "entries", "--mnn-report=r.json", "--mnn-report=r.md")
    assert found.status == 1
    report = json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))
    assert report["models"] == []
    assert report["baseline"]["path"] == str(pytester.path / "b.json")
    assert [one["code"] for one in report["baseline"]["check"]["findings"]] == ["MNQ910"]
    assert "MNQ910 baseline-unusable" in (pytester.path / "r.md").read_text(encoding="utf-8")
