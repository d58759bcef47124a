"""A variant's history as it is shown: which runs, and what can't be said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pytest_mnnquant.findings.metric import COVERAGE, LATENCY, METRICS, SIZE
from pytest_mnnquant.history.as_json import history_json
from pytest_mnnquant.history.view import HistoryView
from tests.history.past import OTHER, store
from tests.history.test_series import only, ratios


def test_the_last_runs_that_measured_the_metrics_are_listed(tmp_path: Path) -> None:
    for number in range(5):
        store(tmp_path, number, size=1000 + number)
    store(tmp_path, 5, coverage=0.5)
    history = only(tmp_path)
    view = HistoryView(history, (SIZE,), last=2)
    assert [row.figures.size for row in view.rows] == [1003, 1004]
    assert view.left_out == 3
    assert len(HistoryView(history).rows) == 6
    assert HistoryView(history).left_out == 0
    assert [row.figures.coverage for row in HistoryView(history, (COVERAGE,), last=9).rows] == [0.5]


def test_metrics_of_which_nothing_can_be_said_are_named(tmp_path: Path) -> None:
    store(tmp_path, 1, size=1000, ratio=0.5, dirty=True)
    view = HistoryView(only(tmp_path))
    assert view.uncommitted == (SIZE,)
    assert view.too_few == (LATENCY,)


def test_a_step_has_a_host_only_if_there_are_several(tmp_path: Path, random: np.random.Generator) -> None:
    levels = {number: 0.6 if number < 12 else 0.7 for number in range(20)}
    ratios(tmp_path, levels, random)
    (step,) = (history := only(tmp_path)).steps
    assert HistoryView(history).host_of(step) == ""
    ratios(tmp_path, dict.fromkeys(range(20), 0.6), random, machine=OTHER)
    history = only(tmp_path)
    assert HistoryView(history).host_of(history.steps[0]) == str(history.steps[0].machine)


def test_the_json_form_has_a_value_of_each_metric_for_each_run(tmp_path: Path) -> None:
    store(tmp_path, 1, size=1000)
    value = history_json(HistoryView(only(tmp_path)))
    (run,) = value["runs"]
    assert {metric.key for metric in METRICS} <= run.keys()
    assert (run["size"], run["ratio"], "lower_is_better" in run) == (1000, None, False)
    assert json.loads(json.dumps(value))["runs"][0]["failed"] == list(run["failed"])
