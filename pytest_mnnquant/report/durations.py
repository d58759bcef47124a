"""The slowest steps of a run (`--mnn-durations`): their time and memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from pytest_mnnquant.measurements.step_cost import StepCost
from pytest_mnnquant.report.model import Report
from pytest_mnnquant.report.width import cut, shown

# Seconds. pytest's `--durations` hides the same.
_SHORTEST: Final = 0.005
_HEAD: Final = "    time  child peak  check: step"


def write_durations(reporter: Any, report: Report, count: int, columns: int) -> None:
    """Write the `count` slowest steps to pytest's terminal reporter; 0: all."""
    steps = slowest_steps(report, count)
    if steps:
        reporter.write_sep("=", f"slowest {len(steps)} steps of the checks")
        for line in duration_lines(steps, columns):
            reporter.write_line(line)


def slowest_steps(report: Report, count: int) -> list[tuple[str, StepCost]]:
    """The `count` slowest steps (0: all), each with the model, the variant and the check that it was needed for."""
    steps = [
        (f"{model.name} {variant.label}::{check.check}", _without_label(cost, variant.label))
        for model in report.models
        for variant in model.variants
        for check in variant.checks
        for cost in check.steps
        if cost.seconds >= _SHORTEST
    ]
    steps.sort(key=lambda pair: -pair[1].seconds)
    return steps[: count or None]


def duration_lines(steps: Sequence[tuple[str, StepCost]], columns: int) -> list[str]:
    """A line per step, at most `columns` wide, below a heading; and the peak of the pytest process at the end."""
    lines = [_HEAD]
    for owner, cost in steps:
        memory = "-" if cost.child_mb is None else f"{cost.child_mb:,.0f} MB"
        lines.append(f"{cost.seconds:6.2f} s  {memory:>10}  {owner}: {cost.step}")
    peaks = [cost.pytest_mb for _, cost in steps if cost.pytest_mb is not None]
    if peaks:
        lines.append(f"peak of the pytest process: {max(peaks):,.0f} MB")
    return [cut(shown(line), columns - 1) for line in lines]


def _without_label(cost: StepCost, label: str) -> StepCost:
    """The cost of a step, whose name does not begin with the variant's label."""
    return dataclasses.replace(cost, step=cost.step.removeprefix(f"{label}: "))
