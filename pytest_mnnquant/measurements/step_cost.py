"""What a step of a check cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepCost:
    """The time of a step, without the steps inside of it, and the memory of its processes.

    `seconds` is wall time. `child_mb` is the largest peak of a child process of the step in MiB, None if none ran.
    `pytest_mb` is the peak of the pytest process until the end of the step in MiB, None if the system does not say.
    """

    step: str
    seconds: float
    child_mb: float | None = None
    pytest_mb: float | None = None
