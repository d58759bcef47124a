"""The report is built from records: by model and variant, one check each, findings joined by their identity."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_mnnquant.findings.finding import Finding, FindingId, Result
from pytest_mnnquant.measurements.chart_samples import ChartSamples
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.record import CheckRecord
from pytest_mnnquant.report.variant_report import ReportedFinding
from tests.report.made import record, variant_report
from tests.results import size as size_metrics


def test_checks_are_gathered_by_model_and_variant() -> None:
    size, coverage = (
        Result.from_findings("size", [], size_metrics(4.0)),
        Result.from_findings("coverage", [Finding("MNQ401", "x", "conv")]),
    )
    report = build_report(
        [record(size), record(coverage), record(size, "w8"), record(size, "w8", "other")], {"MNN": "3.6.1"}, strict=True
    )
    assert (report.versions, report.strict, report.baseline) == ({"MNN": "3.6.1"}, True, None)
    first, second = report.models
    assert (first.name, first.source, first.file) == ("digits", "digits.py:build", "/home/digits.py")
    assert first.base is not None
    assert first.base.bytes == 40
    assert [item.label for item in first.variants] == ["int8-eval", "w8"]
    assert [check.check for check in first.variants[0].checks] == ["size", "coverage"]
    assert first.variants[0].checks[1].findings[0].id == FindingId("MNQ401", "coverage", "conv")
    assert [item.recipe for item in second.variants] == ["w8"]


def test_a_check_that_ran_twice_is_reported_as_it_last_was() -> None:
    first, second = Result.from_findings("size", [Finding("MNQ801", "x")]), Result.from_findings("size", [])
    (model,) = build_report([record(first), record(second)], {}).models
    assert [check.outcome for check in model.variants[0].checks] == ["passed"]


@pytest.mark.parametrize("failed_first", [True, False])
def test_a_check_that_two_tests_ran_has_the_worst_outcome(failed_first: bool) -> None:
    failed = Result.from_findings("size", [Finding("MNQ802", "x")], size_metrics(5.0))
    passed = Result.from_findings("size", [Finding("MNQ804", "y")], size_metrics(2.0))
    both = [failed, passed] if failed_first else [passed, failed]
    records = [dataclasses.replace(record(check), order=number) for number, check in enumerate(both)]
    (model,) = build_report(records, {}).models
    (check,) = model.variants[0].checks
    assert (check.outcome, check.metrics) == ("failed", size_metrics(5.0))
    assert [finding.code for finding in check.findings] == ["MNQ802", "MNQ804"]
    (same,) = build_report([*records, *records], {}).models
    assert same.variants == model.variants


def test_no_records_are_an_empty_report() -> None:
    assert build_report([], {}).models == ()


ROOT = Finding("MNQ304", "no such tensor", "conv")
ROOT_RECORD = record(Result.from_findings("params", [ROOT]))


def findings_of(*records: CheckRecord) -> list[ReportedFinding]:
    (model,) = build_report(records, {}).models
    return [finding for checked in model.variants for check in checked.checks for finding in check.findings]


@pytest.mark.parametrize("root_first", [True, False])
def test_consequences_are_joined_by_identity_whichever_check_ran_first(root_first: bool) -> None:
    effect = Finding("MNQ401", "is float", "conv", follows=FindingId("MNQ304", "params", "conv"))
    results = [Result.from_findings("params", [ROOT]), Result.from_findings("coverage", [effect])]
    records = [record(result) for result in (results if root_first else results[::-1])]
    root, follower = findings_of(*records) if root_first else findings_of(*records)[::-1]
    assert [(one.id, one.message) for one in root.consequences] == [(follower.id, "is float")]
    assert follower.follows == root.id
    assert follower.consequences == ()


def test_a_consequence_that_is_listed_already_is_not_listed_twice() -> None:
    listed = Finding("MNQ401", "is float", "conv", check="coverage")
    effect = dataclasses.replace(listed, follows=FindingId("MNQ304", "params", "conv"))
    root, _ = findings_of(
        record(Result.from_findings("params", [dataclasses.replace(ROOT, consequences=(listed,))])),
        record(Result.from_findings("coverage", [effect])),
    )
    assert [one.id for one in root.consequences] == [FindingId("MNQ401", "coverage", "conv")]


@pytest.mark.parametrize(
    "follows",
    [FindingId("MNQ304", "params", "other"), FindingId("MNQ304", "weights", "conv"), FindingId("MNQ302", "params")],
)
def test_what_follows_from_another_finding_is_not_joined(follows: FindingId) -> None:
    effect = Finding("MNQ401", "is float", "conv", follows=follows)
    root, _ = findings_of(
        record(Result.from_findings("params", [ROOT])), record(Result.from_findings("coverage", [effect]))
    )
    assert root.consequences == ()


def test_findings_of_another_variant_are_not_joined() -> None:
    effect = Finding("MNQ401", "is float", "conv", follows=FindingId("MNQ304", "params", "conv"))
    root, _ = findings_of(
        record(Result.from_findings("params", [ROOT])), record(Result.from_findings("coverage", [effect]), "w8")
    )
    assert root.consequences == ()
    assert root.variant == "int8-eval"


def test_charts_of_several_checks_are_one_set() -> None:
    size, latency = record(Result.from_findings("size", [])), record(Result.from_findings("latency", []))
    size = dataclasses.replace(size, charts=ChartSamples(unavailable={"weights": "no"}))
    latency = dataclasses.replace(latency, charts=ChartSamples(ratios=(0.5, 0.25)))
    (model,) = build_report([size, latency], {}).models
    assert model.variants[0].charts == ChartSamples(ratios=(0.5, 0.25), unavailable={"weights": "no"})


def test_a_target_is_a_variant_of_its_own() -> None:
    there = record(Result.from_findings("execution"), variant=variant_report(target="phone", worker="board"))
    (model,) = build_report([record(Result.from_findings("execution", [])), there], {}).models
    assert [(one.label, one.target, one.worker) for one in model.variants] == [
        ("int8-eval", "", ""),
        ("int8-eval@phone", "phone", "board"),
    ]
