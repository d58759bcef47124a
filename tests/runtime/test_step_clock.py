"""The clock of steps: who pays for which time, and for which memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pytest_mnnquant.evidence.steps import StepFailed, step
from pytest_mnnquant.runtime.step_clock import StepClock, note_child_peak, rename_step, set_step_clock, timed_step

SHORT, LONG = 0.02, 0.06


@pytest.fixture
def clock() -> Iterator[StepClock]:
    measured = StepClock()
    set_step_clock(measured)
    yield measured
    set_step_clock(None)


def test_the_time_of_an_inner_step_does_not_count_for_the_outer(clock: StepClock) -> None:
    with timed_step("outer"):
        time.sleep(SHORT)
        with timed_step("inner"):
            time.sleep(LONG)
    seconds = {cost.step: cost.seconds for cost in clock.take()}
    assert list(seconds) == ["outer", "inner"]
    assert SHORT <= seconds["outer"] < LONG <= seconds["inner"]
    assert clock.take() == ()


def test_equal_names_add_up_and_a_step_can_be_renamed(clock: StepClock) -> None:
    for _ in range(2):
        with timed_step("prepare"):
            rename_step("export")
            time.sleep(SHORT)
    costs = {cost.step: cost.seconds for cost in clock.take()}
    assert costs["export"] >= 2 * SHORT
    assert costs["prepare"] < SHORT


def test_the_largest_peak_of_the_children_counts(clock: StepClock) -> None:
    with timed_step("run"):
        for megabytes in (30.0, 80.0, 50.0):
            note_child_peak(megabytes)
    note_child_peak(1000.0)  # Outside of all steps.
    (cost,) = clock.take()
    assert cost.child_mb == 80.0
    assert cost.pytest_mb is None or cost.pytest_mb > 10


def test_other_threads_are_not_measured(clock: StepClock) -> None:
    def run() -> None:
        with timed_step("beside"):
            rename_step("elsewhere")

    with timed_step("run"):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert [cost.step for cost in clock.take()] == ["run"]


def test_a_step_that_fails_is_measured(clock: StepClock) -> None:
    with pytest.raises(StepFailed), step("read the trace"):
        raise KeyError("net")
    assert [cost.step for cost in clock.take()] == ["read the trace"]


def test_without_a_clock_nothing_happens() -> None:
    with timed_step("run"):
        rename_step("other")
        note_child_peak(1.0)
