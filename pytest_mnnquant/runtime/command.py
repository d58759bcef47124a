"""A command that runs a program on the folder of a job, in a separate process with a time limit."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_mnnquant.runtime.package_files import package_folder
from pytest_mnnquant.runtime.programs.paths import PATHS
from pytest_mnnquant.runtime.programs.process import PARENT
from pytest_mnnquant.runtime.progress import SilenceLimit, has_listener, report_child_progress
from pytest_mnnquant.runtime.worker import end_family

#: The programs of jobs: the only folder of this package that another machine needs.
PROGRAMS: Final = package_folder() / "runtime" / "programs"
#: The Python of this process.
HERE: Final = (sys.executable,)
# Seconds between two reads of a child's progress.
_LOOK: Final = 0.25


@dataclass(frozen=True)
class Command:
    """Runs each job in a new process. `python` are the words of a command that takes a `program` as Python does.

    `environment` is added to the environment of this process.
    """

    program: Path = PROGRAMS
    python: Sequence[str] = HERE
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, job_file: Path, timeout: float) -> int:
        """Run a job, with its output in `log.txt` beside it; returns the exit status, negative for a signal.

        Raises `subprocess.TimeoutExpired` after `timeout` seconds without progress, and `OSError` if the
        command can't be started.
        """
        folder = job_file.parent
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [*self.python, str(self.program), str(job_file)],
                cwd=folder,
                env={**os.environ, **(inherited_paths() if self.python == HERE else {}), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return _exit_status(process, timeout, folder / "progress")
            finally:
                end_family(process)  # Also processes that it has left running.


def inherited_paths() -> dict[str, str]:
    """The folders that this process imports from, its UTF-8 mode and its id, for children with the same Python."""
    paths = os.pathsep.join(filter(None, sys.path))
    return {PATHS: paths, "PYTHONUTF8": str(sys.flags.utf8_mode), PARENT: str(os.getpid())}


def _exit_status(process: subprocess.Popen[bytes], timeout: float, progress: Path) -> int:
    """Wait for the exit status; meanwhile pass on the child's progress."""
    limit = SilenceLimit(timeout, progress)
    while limit.left():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(_LOOK, limit.left()))
        if has_listener():
            report_child_progress(progress)
    raise subprocess.TimeoutExpired(process.args, timeout)
