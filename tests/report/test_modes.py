"""Train against eval: the sentence follows from the figures."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import Metrics
from pytest_mnnquant.findings.finding import FAILED, PASSED
from pytest_mnnquant.report.json_report import render
from pytest_mnnquant.report.model import HostReport, ModelReport, Report
from pytest_mnnquant.report.modes import ModeComparison, compare_modes, comparison_lines
from pytest_mnnquant.report.variant_report import CheckReport, LayerReport, VariantReport
from tests.results import output, size


def variant(
    mode: str | None,
    *,
    coverage: float | None = 1.0,
    top1: float | None = 0.99,
    cosine: float | None = 0.999,
    drift: float = 0.0,
    scale: float = 0.1,
    samples: int = 600,
    ratio: float = 3.5,
    failed: tuple[str, ...] = (),
) -> VariantReport:
    metrics: dict[str, Metrics] = {"size": size(ratio), "accuracy": AccuracyMetrics(samples, {"y": output(cosine)})}
    if top1 is not None:
        metrics["accuracy"] = AccuracyMetrics(samples, {"y": output(cosine)}, float_top1=0.99, top1=top1)
    layers = (
        LayerReport("conv", "Convolution", 9, "int8", 8, 9, 36, scale, 0.2, True, False, None),
        LayerReport("float", "Convolution", 9, "float32", 32, 36, 36, None, None, False, False, None),
    )
    checks = (CheckReport(name, FAILED if name in failed else PASSED, metrics=metrics[name]) for name in metrics)
    return VariantReport("int8", mode, coverage=coverage, drift=drift, layers=layers, checks=tuple(checks))


def compared(train: dict[str, Any], other: dict[str, Any]) -> ModeComparison:
    (found,) = compare_modes([variant("train", **train), variant("eval", **other)])
    return found


@pytest.mark.parametrize(
    ("train", "other", "verdict"),
    [
        ({}, {}, "^(?!ship).*100.0%"),
        ({"coverage": 0.5}, {}, "ship eval: train quantizes 50.0% of the weights, eval 100.0%"),
        (
            {"drift": 0.2},
            {},
            "ship eval: .* 0.9900 in both; .* 0.2 standard deviations$",
        ),
        ({"scale": 0.2}, {}, "ship eval: .*top-1 is 0.9900 in both$"),
        ({"top1": 0.985, "drift": 1}, {}, "ship eval: .* 0.9850 in train and 0.9900 in eval.* 600 samples"),
        ({"top1": 0.105, "drift": 2.4}, {}, "ship eval: .*, but top-1 is 0.1050 in train and 0.9900 in eval"),
        ({"scale": 0.2}, {"top1": 0.7}, "ship train: .*, but top-1"),
        (
            {"top1": None, "scale": 0.2},
            {"top1": None},
            "ship eval: .*cosine to float is 0.9990 in train and 0.9990 in eval",
        ),
        (
            {"top1": None, "cosine": 0.9, "scale": 1},
            {"top1": None},
            "ship eval: .*, but cosine to float is 0.9000 in t",
        ),
        ({"failed": ("accuracy",)}, {"failed": ("accuracy",)}, "^ship neither: both failed accuracy$"),
        (
            {"failed": ("accuracy", "size")},
            {"failed": ("size",)},
            "^ship neither: train failed accuracy, size; eval failed size$",
        ),
        ({"failed": ("size",)}, {}, "^ship eval: train failed size$"),
        ({"top1": 0.5, "scale": 1}, {"failed": ("size",)}, "^ship train: eval failed size$"),
        (
            {"top1": 0.105, "drift": 2.4, "failed": ("accuracy",)},
            {},
            "^ship eval: train failed accuracy; both .*, but top-1 is .* 2.4 standard",
        ),
        ({"coverage": 0.5}, {"failed": ("size",)}, "^ship train: eval failed size$"),
        ({"top1": None, "cosine": None, "scale": 1}, {"top1": None, "cosine": None}, "accuracy was not measured"),
    ],
    ids=str,
)
def test_a_sentence_says_which_mode_to_ship(train: dict[str, Any], other: dict[str, Any], verdict: str) -> None:
    assert re.search(verdict, compared(train, other).verdict)


def test_scales_are_compared_tensor_by_tensor() -> None:
    assert compared({"scale": 0.12}, {}).changes == pytest.approx({"conv in": 0.2, "conv out": 0.0})


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (0.12, "by 10.0% (median), by 20.0% at most (conv in)"),
        (0.99, "by 445.0% (median), by 890.0% at most (conv in)"),
        (1.2, "by 550.0% (median), by more than 10x in conv in"),
        (35000.0, "by more than 10x (median), by more than 10x in conv in"),
    ],
)
def test_scales_far_apart_have_no_long_percentage(scale: float, told: str) -> None:
    assert f"scales differ {told}" in " ".join("\n".join(comparison_lines(compared({"scale": scale}, {}))).split())


def test_one_mode_alone_is_not_compared() -> None:
    both = variant("train"), variant("eval")
    assert len(compare_modes(both)) == 1
    assert compare_modes([variant("train", coverage=None), variant("eval")]) == ()
    assert compare_modes(both[1:]) == ()
    assert compare_modes([variant(None), variant(None)]) == ()
    assert compare_modes([both[0], dataclasses.replace(both[1], target="phone")]) == ()


def test_the_lines_hold_every_figure_and_fit_a_terminal() -> None:
    lines = comparison_lines(compared({"top1": 0.105, "drift": 2.37, "scale": 0.3}, {}))
    text = "\n".join(lines)
    for figure in ("100.0%", "3.50x smaller", "top-1 0.1050 (float 0.9900)", "2.4 sd", "200.0% at most (conv in)"):
        assert figure in text
    assert all(len(line) <= 80 for line in lines)


def test_a_file_that_grew_is_not_called_smaller() -> None:
    text = "\n".join(comparison_lines(compared({"ratio": 0.5}, {})))
    assert "2.00x LARGER" in text
    assert "0.50x" not in text


def test_the_report_holds_the_comparison() -> None:
    model = ModelReport("net", "net.py:build", modes=(compared({"drift": 0.2}, {}),))
    report = Report({}, HostReport("x86_64", "Linux", "3.12", 2), models=(model,))
    (found,) = json.loads(render(report))["models"][0]["modes"]
    assert found["recipe"] == "int8"
    assert found["train"]["drift"] == 0.2
    assert found["eval"]["top1"] == 0.99
    assert found["verdict"].startswith("ship eval")
