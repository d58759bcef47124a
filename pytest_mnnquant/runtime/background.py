"""Steps that run beside the current one, on a core that would be idle, before their results are needed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_WORKERS: Final = "PYTEST_XDIST_WORKER_COUNT"
_lock: Final = threading.Lock()
# Steps that no thread has begun yet, and the threads that run steps.
_waiting: Final[deque[Callable[[], object]]] = deque()
_threads: Final[list[threading.Thread]] = []


def spare_cores() -> int:
    """The number of cores besides one that this process can use: xdist's workers share the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, cores // int(os.environ.get(_WORKERS, "1")) - 1)


def has_spare_core() -> bool:
    """Whether this process can use a second core."""
    return spare_cores() > 0


def may_use_second_core() -> bool:
    """Whether a step of this thread may use a second core: steps in the background are on it already."""
    return has_spare_core() and threading.current_thread() is threading.main_thread() and hasattr(os, "fork")


class Ahead(Generic[T]):
    """A step that runs in the background, or never; see `start_ahead`."""

    def __init__(self, step: Callable[[], T]) -> None:
        self._step = step
        self._ended = threading.Event()
        self._result: T | None = None

    def __call__(self) -> None:
        """Run it in this thread."""
        try:
            self._result = self._step()
        finally:
            self._ended.set()

    def take(self) -> T | None:
        """The result, once; None if the step has not begun, which it then never does, or failed."""
        with _lock:
            if self in _waiting:
                _waiting.remove(self)
                self.give_up()
        self._ended.wait()
        result, self._result = self._result, None
        return result

    def give_up(self) -> None:
        """Never run."""
        self._ended.set()


def start_ahead(step: Callable[[], T]) -> Ahead[T]:
    """Run a step in the background when a core is idle; if this process has one core, never.

    Steps begin in the order in which they were given. A failure is ignored: it shows when the result is needed.
    """
    ahead = Ahead(step)
    with _lock:
        if not (cores := spare_cores()):
            ahead.give_up()
            return ahead
        _waiting.append(ahead)
        if len(_threads) < cores:
            thread = threading.Thread(target=_run_waiting, name="mnnquant-ahead", daemon=True)
            _threads.append(thread)
            thread.start()
    return ahead


def _run_waiting() -> None:
    """Run steps until none waits."""
    while True:
        with _lock:
            if not _waiting:
                _threads.remove(threading.current_thread())
                return
            step = _waiting.popleft()
        with contextlib.suppress(Exception):
            step()


def wait_for_idle() -> None:
    """Wait until no step runs in the background, before something is timed."""
    while True:
        with _lock:
            running = [*_threads]
        if not running:
            return
        for thread in running:
            thread.join()


def both(first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    """The results of two steps, side by side if a core is idle. Raises the exception of the first that failed."""
    if not has_spare_core():
        return first(), second()
    results: list[T] = []
    errors: list[BaseException] = []

    def run_second() -> None:
        try:
            results.append(second())
        except BaseException as error:  # Raised below, in the thread that waits.
            errors.append(error)

    thread = threading.Thread(target=run_second, name="mnnquant-beside", daemon=True)
    thread.start()
    try:
        result = first()
    except Exception:  # An interrupt does not wait.
        thread.join()
        raise
    thread.join()
    if errors:
        raise errors[0]
    return result, results[0]
