"""Train against eval: the sentence follows from the figures."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_mnnquant.report.modes import Comparison, compare_modes, comparison_lines


def records(
    mode: str,
    *,
    coverage: float | None = 1.0,
    top1: float | None = 0.99,
    cosine: float | None = 0.999,
    drift: float = 0.0,
    scale: float = 0.1,
    samples: int = 600,
    ratio: float = 3.5,
    failed: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    metrics: dict[str, Any] = {"samples": samples, "outputs": {"output": {"cosine": cosine}}}
    if top1 is not None:
        metrics |= {"float_top1": 0.99, "top1": top1}
    variant: dict[str, Any] = {"recipe": "int8", "mode": mode, "layers": []}
    if coverage is not None:
        layer = {"name": "conv", "scale_in": scale, "scale_out": 0.2}
        variant |= {"coverage": coverage, "bn_drift": drift, "layers": [layer, {"name": "float", "scale_in": None}]}
    checks = [("size", {"size_ratio": ratio}), ("accuracy", metrics)]
    return [
        {"model": "net", "variant": variant,
         "check": {"check": name, "outcome": "failed" if name in failed else "passed", "metrics": found}}
        for name, found in checks
    ]  # fmt: skip


def compared(train: dict[str, Any], other: dict[str, Any]) -> Comparison:
    (found,) = compare_modes(records("train", **train) + records("eval", **other))["net"]
    return found


@pytest.mark.parametrize(
    ("train", "other", "verdict"),
    [
        ({}, {}, "they do not differ: both quantize the same share of the weights .100.0%., with the same scales"),
        ({"coverage": 0.5}, {}, "ship eval: train quantizes 50.0% of the weights, eval 100.0%"),
        (
            {"drift": 0.2},
            {},
            "ship eval: .*, and top-1 is 0.9900 in both; train moved BatchNorm statistics by up",
        ),
        ({"scale": 0.2}, {}, "ship eval: .*top-1 is 0.9900 in both$"),
        ({"top1": 0.985, "drift": 1}, {}, "ship eval: .* 0.9850 in train and 0.9900 in eval, which 600 samples can't"),
        ({"top1": 0.105, "drift": 2.4}, {}, "ship eval: .*, but top-1 is 0.1050 in train and 0.9900 in eval"),
        ({"scale": 0.2}, {"top1": 0.7}, "ship train: .*, but top-1"),
        ({"top1": None, "scale": 0.2}, {"top1": None}, "ship eval: .*cosine .*, which is no difference"),
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
            "^ship eval: train failed accuracy; both .*, but top-1 is .*; train moved BatchNorm .* 2.4 standard",
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
    assert compare_modes(records("train", coverage=None) + records("eval")) == {}
    assert compare_modes(records("eval")) == {}
    assert (
        compare_modes([{**record, "variant": {**record["variant"], "mode": None}} for record in records("eval")]) == {}
    )


def test_the_lines_hold_every_figure_and_fit_a_terminal() -> None:
    lines = comparison_lines(compared({"top1": 0.105, "drift": 2.37, "scale": 0.3}, {}))
    text = "\n".join(lines)
    for figure in ("100.0%", "3.50x smaller", "top-1 0.1050 (float 0.9900)", "2.4 sd", "200.0% at most (conv in)"):
        assert figure in text
    assert all(len(line) < 80 for line in lines)


def test_a_file_that_grew_is_not_called_smaller() -> None:
    text = "\n".join(comparison_lines(compared({"ratio": 0.5}, {})))
    assert "2.00x LARGER" in text
    assert "0.50x" not in text


def test_the_report_holds_the_comparison() -> None:
    found = compared({"drift": 0.2}, {}).as_json()
    assert found["recipe"] == "int8"
    assert found["train"]["drift"] == 0.2
    assert found["eval"]["top1"] == 0.99
    assert found["verdict"].startswith("ship eval")
