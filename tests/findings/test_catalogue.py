"""The registry of checks: one entry per check."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_mnnquant.findings.baseline_metrics import BaselineMetrics
from pytest_mnnquant.findings.catalogue import ALL_NAMES, BASELINE, CHECK_NAMES, CHECKS, ENTRIES, check_named
from pytest_mnnquant.findings.check import Check, RunsOn
from pytest_mnnquant.findings.check_metrics import Metrics
from pytest_mnnquant.findings.metric import METRICS, Metric

each_check = pytest.mark.parametrize("check", CHECKS, ids=CHECK_NAMES)


def test_each_check_has_a_name_of_its_own() -> None:
    assert len(set(ALL_NAMES)) == len(ALL_NAMES) == len(CHECKS) + 2
    assert [check_named(name).name for name in ALL_NAMES] == [*CHECK_NAMES, BASELINE, ENTRIES]


@each_check
def test_a_check_measures_what_its_class_of_metrics_says(check: Check) -> None:
    kind = check.metrics_kind
    assert kind is not None
    assert issubclass(kind, Metrics)
    assert sum(other.metrics_kind is kind for other in CHECKS) == 1


def test_the_baseline_has_metrics_and_the_check_of_its_file_has_none() -> None:
    assert check_named(BASELINE).metrics_kind is BaselineMetrics
    assert check_named(ENTRIES).metrics_kind is None


@each_check
def test_what_runs_before_a_check_comes_before_it(check: Check) -> None:
    earlier = CHECK_NAMES[: CHECK_NAMES.index(check.name)]
    assert set(check.after) <= set(earlier)


@each_check
def test_what_judges_files_alone_runs_on_no_target(check: Check) -> None:
    assert not (check.is_static and (check.runs_on is not RunsOn.HOST or check.is_timed))


def test_a_device_judges_more_than_an_emulator() -> None:
    everywhere, on_devices = ({c.name for c in CHECKS if c.is_run_on(is_device=device)} for device in (False, True))
    assert everywhere == {"execution", "accuracy"}
    assert on_devices == everywhere | {"latency", "memory"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_a_metric_is_measured_by_the_check_that_it_names(metric: Metric[Any]) -> None:
    assert check_named(metric.check).metrics_kind is metric.kind
