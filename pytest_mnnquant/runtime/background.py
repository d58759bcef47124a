"""Steps that run beside the current one, on a core that would be idle: what they compute is stored for later."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")
_WORKERS: Final = "PYTEST_XDIST_WORKER_COUNT"
_running: Final[list[threading.Thread]] = []


def has_spare_core() -> bool:
    """Whether this process can use a second core: xdist's workers share the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores // int(os.environ.get(_WORKERS, "1")) > 1


def start_ahead(step: Callable[[], object]) -> None:
    """Run a step in the background if a core is idle. Its failure is ignored: it shows when the result is needed."""

    def quietly() -> None:
        with contextlib.suppress(Exception):
            step()

    if has_spare_core():
        thread = threading.Thread(target=quietly, name="mnnquant-ahead", daemon=True)
        _running.append(thread)
        thread.start()


def wait_for_idle() -> None:
    """Wait until no step runs in the background, before something is timed."""
    while _running:
        _running.pop().join()


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
