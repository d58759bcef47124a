"""Measures the steps of checks: wall time, and the peak memory of this process and its children."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_mnnquant.measurements.step_cost import StepCost
from pytest_mnnquant.runtime.programs.process import peak_mb

# Owned by the plugin's session, which sets it when the run starts and removes it when the run ends.
_clock: StepClock | None = None


def set_step_clock(clock: StepClock | None) -> None:
    """Measure the steps of this process with this clock; None: measure nothing."""
    global _clock
    _clock = clock


@contextlib.contextmanager
def timed_step(name: str) -> Iterator[None]:
    """Measure a step; its time does not count for the step around it. Steps in other threads are not measured."""
    clock = _clock if threading.current_thread() is threading.main_thread() else None
    if clock is None:
        yield
        return
    clock.enter(name)
    try:
        yield
    finally:
        clock.leave()


def rename_step(name: str) -> None:
    """Give the current step of this thread the name that users see in the progress line."""
    if _clock is not None and threading.current_thread() is threading.main_thread():
        _clock.rename(name)


def note_child_peak(megabytes: float) -> None:
    """Count the peak memory of a child process, in MiB, for the current step, also from other threads."""
    if _clock is not None:
        _clock.note_child_peak(megabytes)


@dataclass
class _Cost:
    seconds: float = 0.0
    child_mb: float | None = None
    pytest_mb: float | None = None


class StepClock:
    """Adds up what each step costs, by the name of the step, until the costs are taken."""

    def __init__(self) -> None:
        self._steps: list[str] = []
        self._costs: dict[str, _Cost] = {}
        self._since = time.perf_counter()

    def enter(self, name: str) -> None:
        """A step begins inside of the current one."""
        self._charge()
        self._steps.append(name)

    def rename(self, name: str) -> None:
        """The current step continues under another name; without a current step nothing happens."""
        self._charge()
        if self._steps:
            self._steps[-1] = name

    def leave(self) -> None:
        """The current step ends."""
        self._charge()
        self._steps.pop()

    def note_child_peak(self, megabytes: float) -> None:
        """Count a child's peak for the current step."""
        if self._steps:
            cost = self._cost()
            cost.child_mb = max(megabytes, cost.child_mb or 0.0)

    def take(self) -> tuple[StepCost, ...]:
        """The costs since they were last taken, in the order in which the steps began."""
        self._charge()
        costs, self._costs = self._costs, {}
        return tuple(StepCost(name, cost.seconds, cost.child_mb, cost.pytest_mb) for name, cost in costs.items())

    def _charge(self) -> None:
        """Count the time since the last call for the current step."""
        now = time.perf_counter()
        if self._steps:
            cost = self._cost()
            cost.seconds += now - self._since
            cost.pytest_mb = peak_mb()
        self._since = now

    def _cost(self) -> _Cost:
        return self._costs.setdefault(self._steps[-1], _Cost())
