"""Independent steps run side by side where a core is idle, and nothing runs beside what is timed."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_mnnquant.runtime import background
from pytest_mnnquant.runtime.background import both, has_spare_core, spare_cores, start_ahead, wait_for_idle
from pytest_mnnquant.runtime.progress import has_listener, report_progress, set_listener


@pytest.fixture(params=[True, False])
def spare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a core is idle."""
    monkeypatch.setattr(background, "spare_cores", lambda: int(request.param))
    return bool(request.param)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "spare_cores", lambda: 1)


@pytest.mark.parametrize(
    ("cores", "workers", "expected"), [(1, None, 0), (2, None, 1), (2, "2", 0), (4, "2", 1), (8, None, 7), (2, "4", 0)]
)
def test_workers_of_xdist_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: str | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(cores)})
    if workers is None:
        monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    else:
        monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", workers)
    assert (spare_cores(), has_spare_core()) == (expected, expected > 0)


def test_both_results_come_in_order(spare: bool) -> None:
    threads: list[threading.Thread] = []

    def step(value: int) -> int:
        threads.append(threading.current_thread())
        return value

    assert both(lambda: step(1), lambda: step(2)) == (1, 2)
    assert (threads[0] is not threads[1]) is spare


def fail(error: Exception) -> int:
    raise error


def test_a_failure_of_either_step_is_raised(spare: bool) -> None:
    with pytest.raises(KeyError, match="first"):
        both(lambda: fail(KeyError("first")), lambda: fail(OSError("second")))
    with pytest.raises(OSError, match="second"):
        both(lambda: 1, lambda: fail(OSError("second")))


def test_what_is_timed_waits_for_what_was_started(idle: None) -> None:
    done: list[int] = []

    def slow() -> None:
        time.sleep(0.2)
        done.append(1)

    start_ahead(slow)
    start_ahead(lambda: fail(OSError("ignored: it shows when the result is needed")))
    wait_for_idle()
    assert done == [1]
    wait_for_idle()


def test_no_more_steps_run_than_cores_are_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "spare_cores", lambda: 2)
    now, most, order = [0], [0], []

    def slow(number: int) -> None:
        now[0] += 1
        most[0] = max(most[0], now[0])
        order.append(number)
        time.sleep(0.05)
        now[0] -= 1

    for number in range(6):
        start_ahead(functools.partial(slow, number))
    wait_for_idle()
    assert (most, order) == ([2], [0, 1, 2, 3, 4, 5])


def test_without_an_idle_core_nothing_is_started_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "spare_cores", lambda: 0)
    started: list[int] = []
    start_ahead(lambda: started.append(1))
    wait_for_idle()
    assert not started


@pytest.fixture
def heard() -> Iterator[list[int]]:
    numbers: list[int] = []
    set_listener(lambda done, _of, _unit: numbers.append(done))
    yield numbers
    set_listener(None)


def test_steps_in_the_background_report_no_progress(idle: None, heard: list[int]) -> None:
    both(lambda: report_progress(1, 2, "batches"), lambda: report_progress(2, 2, "batches"))
    assert heard == [1]
    assert has_listener()


def test_the_result_of_a_step_that_ran_is_taken_once(idle: None) -> None:
    begun = threading.Event()

    def step() -> int:
        begun.set()
        return 7

    ahead = start_ahead(step)
    assert begun.wait(10)
    assert (ahead.take(), ahead.take()) == (7, None)


def test_a_step_that_waits_is_given_up(idle: None) -> None:
    go, ran = threading.Event(), threading.Event()
    start_ahead(go.wait)
    second = start_ahead(ran.set)
    assert second.take() is None
    go.set()
    wait_for_idle()
    assert not ran.is_set()


def test_a_step_that_failed_or_had_no_core_has_no_result(monkeypatch: pytest.MonkeyPatch, idle: None) -> None:
    assert start_ahead(functools.partial(fail, KeyError("x"))).take() is None
    monkeypatch.setattr(background, "spare_cores", lambda: 0)
    assert start_ahead(lambda: 1).take() is None
