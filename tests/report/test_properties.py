"""Properties of JUnit: text only, and each figure by its name."""

from __future__ import annotations

import math

from pytest_mnnquant.findings.finding import Finding, judge, skipped
from pytest_mnnquant.report.properties import properties


def test_figures_rules_and_names_are_properties() -> None:
    metrics = {
        "task": {"label": "top-1", "float": 0.99, "quantized": 0.98},
        "outputs": {"y": {"cosine": 0.123456789}, "z": {"cosine": None}},
        "latency_ratio_low": 0.5,
        "size_ratio": None,
    }
    check = judge("accuracy", [Finding("MNQ701", "x"), Finding("MNQ701", "y"), Finding("MNQ730", "z")], metrics)
    assert dict(properties("数字", "int8", "eval", check.as_json())) == {
        "mnn.model": "数字",
        "mnn.recipe": "int8",
        "mnn.mode": "eval",
        "mnn.check": "accuracy",
        "mnn.outcome": "failed",
        "mnn.rules": "MNQ701 MNQ730",
        "mnn.latency_ratio_low": "0.5",
        "mnn.metric": "top-1",
        "mnn.accuracy": "0.98",
        "mnn.float_accuracy": "0.99",
        "mnn.cosine.y": "0.123457",
    }


def test_what_was_not_measured_is_no_property() -> None:
    assert [name for name, _ in properties("a", "w8", None, skipped("params", "none").as_json())] == [
        *("mnn.model", "mnn.recipe", "mnn.check", "mnn.outcome")
    ]
    check = judge("accuracy", [], {"outputs": {"y": {"cosine": math.nan}}}).as_json()
    assert ("mnn.cosine.y", "nan") in properties("a", "w8", None, check)
