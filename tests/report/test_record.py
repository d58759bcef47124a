"""Records travel as JSON, and come back as they were."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, FindingId, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.report.record import CheckRecord, reported
from tests.report.made import layer, record, records
from tests.results import accuracy, size, task

EFFECT = Finding("MNQ401", "is float", "conv", check="coverage")
ROOT = Finding("MNQ304", "no such tensor", "conv", Cause("renamed", "why"), "how", consequences=(EFFECT,))
FOLLOWS = Finding("MNQ801", "too large", follows=FindingId("MNQ304", "params", "conv"))


@pytest.mark.parametrize(
    "result",
    [
        Result.from_findings("params", [ROOT]),
        Result.from_findings("size", [FOLLOWS, Finding("MNQ804", "x", as_warning=True)], size(2.0)),
        Result.from_findings("accuracy", [], accuracy(task("top-1", 0.9, 0.8), y=0.99, z=None)),
        Result.skipped("calibration", "needs none", not_applicable=True),
        dataclasses.replace(Result.from_findings("entries"), ignored={"MNQ912": 2}),
    ],
    ids=lambda result: result.check,
)
def test_a_record_comes_back_as_it_was(result: Result) -> None:
    sent = record(result)
    assert CheckRecord.from_json(json.loads(json.dumps(sent.as_json()))) == sent


def test_records_of_every_check_with_layers_and_charts_come_back() -> None:
    for sent in records([layer("conv"), layer("head", quantized=False)]):
        assert CheckRecord.from_json(json.loads(json.dumps(sent.as_json()))) == sent


def test_numbers_that_are_not_finite_travel_too() -> None:
    sent = record(Result.from_findings("accuracy", [], accuracy(y=math.inf)))
    assert CheckRecord.from_json(sent.as_json()) == sent


def test_a_finding_is_reported_with_its_identity_and_its_variant() -> None:
    (root,) = reported(Result.from_findings("params", [ROOT]), "int8-eval").findings
    assert (root.id, root.variant, root.severity) == (
        FindingId("MNQ304", "params", "conv"),
        "int8-eval",
        Severity.ERROR,
    )
    assert (root.cause, root.fix, root.rule.title) == ("why", "how", "MNQ304 params-name-mismatch")
    assert [effect.id for effect in root.consequences] == [FindingId("MNQ401", "coverage", "conv")]
    (effect,) = reported(Result.from_findings("size", [FOLLOWS])).findings
    assert (effect.severity, effect.follows) == (Severity.CONSEQUENCE, root.id)
