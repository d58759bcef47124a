"""Findings and results: what fails, what stays open, what is left out."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, SKIPPED, Finding, Result, without_ignored
from pytest_mnnquant.findings.rule import Severity
from tests.results import coverage, size

ERROR, WARNING, GAP = Finding("MNQ401", "float"), Finding("MNQ804", "mixed"), Finding("MNQ003", "no clock")


@pytest.mark.parametrize(
    ("findings", "outcome"),
    [
        ([], PASSED),
        ([WARNING], PASSED),
        ([GAP], INCONCLUSIVE),
        ([WARNING, GAP], INCONCLUSIVE),
        ([WARNING, GAP, ERROR], FAILED),
        ([Finding("MNQ401", "float", as_warning=True)], PASSED),
    ],
    ids=str,
)
def test_the_worst_finding_decides(findings: list[Finding], outcome: str) -> None:
    result = Result.from_findings("size", findings, size(2.0))
    assert result.outcome == outcome
    assert bool(result) == (outcome == PASSED)
    assert result.reason == ("no clock" if outcome == INCONCLUSIVE else "")
    assert result.metrics == size(2.0)


def test_a_skipped_check_is_not_passed() -> None:
    result = Result.skipped("accuracy", "no data")
    assert (result.outcome, result.reason, bool(result)) == (SKIPPED, "no data", False)
    assert without_ignored(result, ("MNQ401",)) is result


def test_ignored_findings_do_not_count_but_are_counted() -> None:
    result = Result.from_findings("coverage", [ERROR, WARNING, ERROR], coverage(0.5))
    assert without_ignored(result, ()) is result
    assert without_ignored(result, ("MNQ999",)) is result
    ignored = without_ignored(result, ("MNQ401",))
    assert (ignored.outcome, ignored.findings) == (PASSED, (dataclasses.replace(WARNING, check="coverage"),))
    assert ignored.metrics == coverage(0.5)
    assert ignored.ignored == {"MNQ401": 2}
    assert without_ignored(without_ignored(result, ("MNQ401",)), ("MNQ8",)).ignored == {"MNQ401": 2, "MNQ804": 1}
    assert without_ignored(result, ("MNQ804",)).outcome == FAILED


def test_a_finding_may_be_a_warning_by_itself() -> None:
    assert Finding("MNQ401", "", as_warning=True).severity is Severity.WARNING


def test_the_catalogue_is_consistent() -> None:
    names = [rule.name for rule in RULES.values()]
    assert len(set(names)) == len(names)
    for code, rule in RULES.items():
        assert rule.code == code
        assert len(code) == 6
        assert code[3:].isdigit()
        assert rule.name == rule.name.lower().replace("_", "-").replace(" ", "-")
        assert rule.meaning.endswith(".")
        assert isinstance(rule.severity, Severity)


def test_an_unknown_code_can_not_be_told() -> None:
    with pytest.raises(KeyError):
        Result.from_findings("size", [Finding("MNQ000", "?")])
