"""An exception inside the gate is one finding that names the step; what does not need the step is judged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_mnnquant.evidence import variant, variant_runs
from pytest_mnnquant.evidence.steps import NothingToJudge, Unusable
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.plugin import benchmark
from pytest_mnnquant.plugin.items import CheckItem
from pytest_mnnquant.plugin.session import PluginSession
from tests.plugin.conftest import Run

INTERNAL = "MNQ004"
W8 = ("--mnn-model=net.py:build", "--mnn-recipe=w8", "--benchmark-disable")


def _broken(*_arguments: object, **_keywords: object) -> Any:
    raise ValueError("operands could not be broadcast together with shapes (3,4) (5,4)")


def outcomes(run: Run, *options: str) -> dict[str, tuple[str, list[str]]]:
    """The outcome and the codes of each check."""
    found = run(*W8, *options)
    assert "Traceback" not in found.text
    return {check["check"]: (check["outcome"], [item["code"] for item in check["findings"]]) for check in found.checks}


def test_a_run_that_raises_fails_one_check_and_blocks_those_that_need_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variant_runs, "run", _broken)
    found = outcomes(run)
    assert found["execution"] == ("failed", [INTERNAL])
    assert found["accuracy"] == ("skipped", [])
    passed = {name for name, (outcome, _) in found.items() if outcome == "passed"}
    assert {"conversion", "coverage", "weights", "size", "bundle"} <= passed


def test_without_the_check_that_failed_first_the_next_one_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant_runs, "run", _broken)
    assert outcomes(run, "-k", "accuracy") == {"accuracy": ("failed", [INTERNAL])}


def test_an_exception_in_making_the_variant_is_reported_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant, "make_variant", _broken)
    assert outcomes(run, "-k", "conversion or size") == {"conversion": ("failed", [INTERNAL])}


def test_an_exception_in_the_report_of_a_check_shows_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant, "coverage", _broken)
    found = run(*W8, "-k", "size")
    assert (found.status, found.failed, INTERNAL in found.text) == (1, {"w8::size"}, True)
    assert found.codes("size") == {INTERNAL}


CHECKS = "conversion or size or coverage"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("shapes (3,4) (5,4)"), INTERNAL),
        (OSError(28, "No space left on device"), "MNQ101"),
        (Unusable(Finding("MNQ202", "the file is damaged")), "MNQ202"),
        (NothingToJudge("no data"), INTERNAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_an_exception_around_a_check_fails_it_in_all_reports(
    error: Exception, code: str, run: Run, monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester
) -> None:
    result_of = CheckItem._result

    def broken(item: CheckItem, state: PluginSession) -> Result:
        if item.check == "size":
            raise error
        return result_of(item, state)

    monkeypatch.setattr(CheckItem, "_result", broken)
    found = run(*W8, "-k", CHECKS, "--mnn-report=report.json", "--mnn-report=report.md", "--junitxml=junit.xml")
    assert "Traceback" not in found.text
    assert (found.status, found.failed, found.codes("size")) == (1, {"w8::size"}, {code})
    assert found.passed == {"w8::conversion", "w8::coverage"}
    report = json.loads((pytester.path / "report.json").read_text(encoding="utf-8"))
    (checks,) = (variant["checks"] for model in report["models"] for variant in model["variants"])
    assert {check["check"]: check["outcome"] for check in checks}["size"] == "failed"
    page = (pytester.path / "report.md").read_text(encoding="utf-8")
    assert "MNN quantization: ok" not in page
    assert "Traceback" not in page
    (line,) = (line for line in found.lines if line.startswith("net: "))
    assert line.startswith("net: FAILED")


def test_an_exception_after_the_record_replaces_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "add_figures", _broken)
    found = run(*W8, "-k", "size")
    assert (found.status, found.failed) == (1, {"w8::size"})
    assert any(check["outcome"] == "failed" for check in found.checks)
