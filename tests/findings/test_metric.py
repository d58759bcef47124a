"""The registry of metrics: each is registered once, and is a field of what the baseline and the history keep."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pytest_mnnquant.findings.figures import REAL, WHOLE, Figures
from pytest_mnnquant.findings.metric import ACCURACY, KEYS, LATENCY, METRICS, NOT_SHOWN, Metric, with_measured
from tests.results import accuracy, coverage, latency, memory, size, task

ALL = (size(4.0), coverage(0.5), accuracy(task("top-1", 0.9, 0.8)), latency(0.5), memory(0.25))


@pytest.mark.parametrize("metric", METRICS, ids=KEYS)
def test_a_metric_has_fields_of_its_own(metric: Metric[Any]) -> None:
    known = {field.name for field in dataclasses.fields(Figures)}
    assert metric.key == metric.fields[0]
    assert set(metric.fields) <= known
    assert metric.key in (*WHOLE, *REAL)
    others = {field for other in METRICS if other is not metric for field in other.fields}
    assert not others & set(metric.fields)


def test_every_number_that_is_kept_belongs_to_a_metric() -> None:
    assert {*WHOLE, *REAL} <= {field for metric in METRICS for field in metric.fields}


def test_what_checks_measured_is_shown_and_kept() -> None:
    assert [metric.cell(ALL).text for metric in METRICS] == [
        *("4.00x smaller", "50.0%", "top-1 -0.1000", "0.50x float", "0.25x float")
    ]
    kept = with_measured(Figures("net", "w8"), ALL)
    assert [metric.value(kept) for metric in METRICS] == [1000, 0.5, 0.8, 0.5, 10]
    assert (kept.metric, kept.float_size, kept.ratio_high) == ("top1", 4000, 0.5)


def test_what_was_not_measured_is_not_shown() -> None:
    assert all(metric.cell(()) == NOT_SHOWN for metric in METRICS)
    assert LATENCY.cell([latency(1.0), size(1.0)]).number == 1.0
    assert ACCURACY.cell([accuracy()]) == NOT_SHOWN
    assert ACCURACY.cell([accuracy(y=0.75)]).number == -0.25
    assert METRICS[0].written(None) == "-"


def test_a_metric_is_copied_with_all_that_belongs_to_it() -> None:
    before, now = Figures("net", "w8", ratio=1.0, ratio_low=0.9, ratio_high=1.1, size=5), Figures("net", "w8", size=6)
    copied = LATENCY.copied(before, now)
    assert (copied.ratio, copied.ratio_low, copied.ratio_high, copied.size) == (1.0, 0.9, 1.1, 6)
