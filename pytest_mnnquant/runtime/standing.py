"""Runs jobs in forks of a process that stands ready with MNN loaded: loading it takes longer than most jobs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pytest_mnnquant.runtime.command import PROGRAMS, Command, inherited_paths
from pytest_mnnquant.runtime.worker import Worker

# Changes with every test, and no program of a job reads it.
_OF_EACH_TEST: Final = "PYTEST_CURRENT_TEST"


class _Ready(threading.local):
    """The process of a thread: Linux ends it with the thread that started it."""

    worker: Worker | None = None
    environment: Mapping[str, str] | None = None


_ready: Final = _Ready()


class StandingCommand:
    """Runs each job in a fork of the process of this thread, which starts again if the environment has changed."""

    def run(self, job_file: Path, timeout: float) -> int:
        """Run a job, with its output in `log.txt` beside it; returns the exit status, negative for a signal.

        Raises `subprocess.TimeoutExpired` after `timeout` seconds without progress, and `OSError` if the
        process can't be started.
        """
        if "\n" in str(job_file) or not hasattr(os, "fork"):  # The process reads a path per line.
            return Command().run(job_file, timeout)
        return _worker().run(job_file, timeout)


def _worker() -> Worker:
    environment = {**os.environ, **inherited_paths()}
    environment.pop(_OF_EACH_TEST, None)
    if _ready.worker is None or _ready.environment != environment:
        if _ready.worker is not None:
            _ready.worker.close()
        _ready.worker, _ready.environment = Worker([sys.executable, str(PROGRAMS)], environment), environment
    return _ready.worker
