"""A runner that waits for jobs: it loads MNN once, and runs each job in a fork of itself.

Under emulation, loading MNN takes longer than most jobs. Each fork is a separate process, so a crash affects only its
own job.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.runtime.progress import SilenceLimit, has_listener, report_child_progress

_ENOUGH: Final = 64
# Seconds between two looks at a job's progress.
_LOOK: Final = 0.25


class Worker:
    """The process of a command (`words`), started when first needed and restarted after it has ended.

    `environment` replaces that of this process.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._words = tuple(words)
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], object] = lambda: None

    def run(self, job_file: Path, timeout: float) -> int:
        """Run a job in a fork of the waiting process; returns the exit status of the fork, negative for a signal.

        Raises `subprocess.TimeoutExpired` after `timeout` seconds without progress and `OSError` if the process can't
        be started. An exception, such as an interrupt by the user, ends the process and its job.
        """
        try:
            return self._run(job_file, timeout)
        except BaseException:
            self.close()
            raise

    def _run(self, job_file: Path, timeout: float) -> int:
        progress = job_file.parent / "progress"
        limit = SilenceLimit(timeout, progress)
        process = self._process
        if process is None or process.poll() is not None:
            self.close()
            process = self._process = subprocess.Popen(
                [*self._words, "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env=self._environment,
            )
            self._end = weakref.finalize(self, end_family, process)
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # Then reading the answer fails too.
            process.stdin.write(os.fsencode(job_file) + b"\n")
            process.stdin.flush()
        answer, answers = b"", select.poll()  # `select.select` takes no descriptor above 1023.
        answers.register(process.stdout, select.POLLIN)
        while not answer.endswith(b"\n"):
            ready = answers.poll(1000 * min(_LOOK, limit.left()))
            if not ready and limit.left():
                if has_listener():
                    report_child_progress(progress)
                continue
            if not ready:
                raise subprocess.TimeoutExpired(self._words, timeout)
            part = os.read(process.stdout.fileno(), _ENOUGH)
            if not part:  # The process has ended, or is ending.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
                self.close()
                return process.returncode
            answer += part
        return int(answer)

    def close(self) -> None:
        """End the process with its running jobs."""
        self._end()
        self._process = None


def end_family(process: subprocess.Popen[bytes]) -> None:
    """Kill the leader of a process session, with all processes of the session, and wait for it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # Unsent data are not needed any more.
                pipe.close()
