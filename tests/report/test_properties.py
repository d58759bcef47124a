"""Properties of JUnit: text only, and each figure by its name."""

from __future__ import annotations

import math

from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.report.properties import properties
from tests.results import accuracy, task


def test_figures_rules_and_names_are_properties() -> None:
    metrics = accuracy(task("top-1", 0.99, 0.98), y=0.123456789, z=None)
    check = Result.from_findings(
        "accuracy", [Finding("MNQ701", "x"), Finding("MNQ701", "y"), Finding("MNQ730", "z")], metrics
    )
    assert dict(properties("数字", "int8", "eval", check.as_json())) == {
        "mnn.model": "数字",
        "mnn.recipe": "int8",
        "mnn.mode": "eval",
        "mnn.check": "accuracy",
        "mnn.outcome": "failed",
        "mnn.rules": "MNQ701 MNQ730",
        "mnn.metric": "top-1",
        "mnn.accuracy": "0.98",
        "mnn.float_accuracy": "0.99",
        "mnn.cosine.y": "0.123457",
    }


def test_what_was_not_measured_is_no_property() -> None:
    assert [name for name, _ in properties("a", "w8", None, Result.skipped("params", "none").as_json())] == [
        *("mnn.model", "mnn.recipe", "mnn.check", "mnn.outcome")
    ]
    check = Result.from_findings("accuracy", [], accuracy(y=math.nan)).as_json()
    assert ("mnn.cosine.y", "nan") in properties("a", "w8", None, check)
