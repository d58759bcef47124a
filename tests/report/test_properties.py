"""Properties of JUnit: text only, and each figure by its name."""

from __future__ import annotations

import math

from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.report.properties import properties
from pytest_mnnquant.report.record import reported
from pytest_mnnquant.report.variant_report import VariantReport
from tests.results import accuracy, latency, task


def of_result(model: str, variant: VariantReport, result: Result) -> dict[str, str]:
    return dict(properties(model, variant, reported(result)))


def test_figures_rules_and_names_are_properties() -> None:
    metrics = accuracy(task("top-1", 0.99, 0.98), y=0.123456789, z=None)
    result = Result.from_findings(
        "accuracy", [Finding("MNQ701", "x"), Finding("MNQ701", "y"), Finding("MNQ730", "z")], metrics
    )
    assert of_result("数字", VariantReport("int8", "eval", target="phone"), result) == {
        "mnn.model": "数字",
        "mnn.recipe": "int8",
        "mnn.mode": "eval",
        "mnn.target": "phone",
        "mnn.check": "accuracy",
        "mnn.outcome": "failed",
        "mnn.rules": "MNQ701 MNQ730",
        "mnn.metric": "top-1",
        "mnn.accuracy": "0.98",
        "mnn.float_accuracy": "0.99",
        "mnn.cosine.y": "0.123457",
    }


def test_each_number_of_latency_has_its_name() -> None:
    result = Result.from_findings("latency", [], latency(0.5))
    properties_of_latency = of_result("a", VariantReport("w8", None), result)
    assert {name for name in properties_of_latency if "latency_ratio" in name} == {
        *("mnn.latency_ratio", "mnn.latency_ratio_low", "mnn.latency_ratio_high")
    }
    assert properties_of_latency["mnn.latency_ratio"] == "0.5"


def test_what_was_not_measured_is_no_property() -> None:
    variant = VariantReport("w8", None)
    assert [*of_result("a", variant, Result.skipped("params", "none"))] == [
        *("mnn.model", "mnn.recipe", "mnn.check", "mnn.outcome")
    ]
    result = Result.from_findings("accuracy", [], accuracy(y=math.nan))
    assert of_result("a", variant, result)["mnn.cosine.y"] == "nan"
