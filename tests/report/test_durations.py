"""The slowest steps: which are shown, in which order, how wide."""

from __future__ import annotations

from pytest_mnnquant.measurements.step_cost import StepCost
from pytest_mnnquant.report.durations import duration_lines, slowest_steps
from pytest_mnnquant.report.model import HostReport, ModelReport, Report
from pytest_mnnquant.report.variant_report import CheckReport, VariantReport

STEPS = (
    StepCost("int8-train: running", 0.25, 40.0, 400.0),
    StepCost("exporting", 3.0, 1200.4, 380.0),
    StepCost("judge size", 0.001, None, 410.0),
    StepCost("reading", 0.006),
)


def report() -> Report:
    check = CheckReport("execution", "passed", steps=STEPS)
    model = ModelReport("net", "net.py:build", variants=(VariantReport("int8", "train", checks=(check,)),))
    return Report({}, HostReport("x86_64", "Linux", "3.12", 2), models=(model,))


def test_the_slowest_come_first_and_short_ones_are_hidden() -> None:
    assert [cost.step for _, cost in slowest_steps(report(), 0)] == ["exporting", "running", "reading"]
    assert [cost.step for _, cost in slowest_steps(report(), 1)] == ["exporting"]


def test_a_line_has_time_memory_and_the_check_that_needed_the_step() -> None:
    lines = duration_lines(slowest_steps(report(), 0), 80)
    assert lines[1].split() == ["3.00", "s", "1,200", "MB", "net", "int8-train::execution:", "exporting"]
    assert lines[3].split()[:3] == ["0.01", "s", "-"]
    assert "400 MB" in lines[-1]
    assert all(len(line) < 40 for line in duration_lines(slowest_steps(report(), 0), 40))
