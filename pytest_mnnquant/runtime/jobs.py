"""Runs one job in a child process: own folder, time limit, decoded signals, captured log."""

from __future__ import annotations

import enum
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from pytest_mnnquant.runtime.progress import advance_child, has_listener
from pytest_mnnquant.runtime.worker import end_family

#: MNN's program, which is all that another machine needs of this package.
RUNNER: Final = Path(__file__).parent / "programs/runner.py"
_LOG_LINES: Final = 12
# Seconds between two looks at how far a child is, where somebody wants to know.
_LOOK: Final = 0.25
_PROTOCOL: Final = 1


class FailureKind(enum.Enum):
    """The way a native step failed. Programs of child processes report some of them, by these values."""

    #: The process ended by a signal.
    CRASHED = "crashed"
    #: The process had no end, or a connection no answer, within the limit.
    TIMED_OUT = "timed out"
    #: The process ended without a result.
    EXITED = "exited"
    #: The program, or what it calls, raised an exception.
    RAISED = "raised"
    #: The program did not try the job: files of it are missing or damaged.
    REFUSED = "refused"
    #: The Python that ran the program lacks a package.
    MISSING_PACKAGE = "missing package"
    #: The program runs with another MNN than the expected one.
    WRONG_VERSION = "wrong version"
    #: The command could not be started.
    NOT_STARTED = "not started"
    #: No connection to the machine came about.
    NO_CONNECTION = "no connection"
    #: A connection broke off.
    LOST_CONNECTION = "lost connection"
    #: The disk has no room for the job.
    NO_SPACE = "no space"
    #: What came back is damaged, or not an answer of the program.
    BAD_ANSWER = "bad answer"
    #: The inputs can't be used: the process was not started.
    BAD_INPUT = "bad input"
    #: The process ended well, and wrote nothing or nothing that can be used.
    BAD_OUTPUT = "bad output"


class NativeFailure(Exception):
    """A native step failed in the way that `kind` says.

    `what` is one line for people, `log` the last lines that the step printed, `fix` what to do about it (empty: not
    known), `package` the name of a missing package.
    """

    def __init__(self, kind: FailureKind, what: str, log: str = "", *, fix: str = "", package: str = "") -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.log = log
        self.fix = fix
        self.package = package

    def reworded(self, what: str) -> NativeFailure:
        """The same failure with another line for people."""
        return NativeFailure(self.kind, what, self.log, fix=self.fix, package=self.package)

    def __str__(self) -> str:
        return f"{self.what}\nlast lines of its log:\n{self.log}" if self.log else self.what


class Ready(Protocol):
    """What stands ready to run jobs."""

    def run(self, job_file: Path, program: Path, timeout: float) -> int:
        """Have a program work on a job's folder; returns its exit status, negative for a signal.

        Raises `subprocess.TimeoutExpired`, `OSError`, and `NativeFailure` where it knows why there is none.
        """
        ...

    def close(self) -> None:
        """End what waits for jobs."""
        ...


def run_job(
    task: str,
    folder: Path,
    *,
    timeout: float,
    what: str,
    who: str = "MNN",
    program: Path | None = None,
    python: Sequence[str] = (sys.executable,),
    ready: Ready | None = None,
    env: Mapping[str, str] | None = None,
    **job: Any,
) -> dict[str, Any]:
    """Run `task` in `folder` and return its result; raises `NativeFailure`.

    `what` names the step for messages ("converting net.onnx"), `who` whose code it is that may crash. `timeout` is in
    seconds. `program` is run instead of MNN's runner, by `python`, the words of a command that may run one elsewhere;
    `ready` waits for jobs, and takes the command's place. `env` is added to the environment.
    """
    folder = folder.resolve()
    job_file, log_file = folder / "job.json", folder / "log.txt"
    for left in ("result.json", "progress", "log.txt"):
        (folder / left).unlink(missing_ok=True)
    job_file.write_text(json.dumps({"protocol": _PROTOCOL, "task": task, **job}), encoding="utf-8")
    try:
        if ready is not None:
            status = ready.run(job_file, program or RUNNER, timeout)
        else:
            status = _run([*python, str(program or RUNNER), str(job_file)], log_file, env or {}, timeout)
    except NativeFailure as error:
        raise error.reworded(f"{what}: {error.what}") from None
    except subprocess.TimeoutExpired:
        told = f"{what}: no end after {timeout:g} s (limit: --mnn-timeout)"
        raise NativeFailure(FailureKind.TIMED_OUT, told, tail(log_file)) from None
    result_file = folder / "result.json"
    if status != 0 or not result_file.exists():
        kind = FailureKind.CRASHED if status < 0 else FailureKind.EXITED
        raise NativeFailure(kind, f"{what}: {who} {_ending(status)}", tail(log_file))
    result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
    if "error" in result:
        reported = result["error"]
        kind, package = FailureKind(reported["kind"]), reported.get("package", "")
        raise NativeFailure(kind, f"{what}: {reported['message']}", tail(log_file), package=package)
    return result


def _run(command: Sequence[str], log_file: Path, env: Mapping[str, str], timeout: float) -> int:
    """The exit status of a program that runs in the log's folder. Raises `subprocess.TimeoutExpired`."""
    folder = log_file.parent
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _waited(process, timeout, folder / "progress")
        finally:
            end_family(process)  # Also what it has left running.


def _waited(process: subprocess.Popen[bytes], timeout: float, progress: Path) -> int:
    """The exit status, once there is one; until then what the child says of its progress is passed on."""
    if not has_listener():
        return process.wait(timeout)
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        try:
            return process.wait(min(_LOOK, max(0.0, left)))
        except subprocess.TimeoutExpired:
            if left <= _LOOK:
                raise
            advance_child(progress)


def tail(log_file: Path, lines: int = _LOG_LINES) -> str:
    """The last lines of a log, without MNN's noise about the device."""
    text = log_file.read_text(encoding="utf-8", errors="replace") if log_file.exists() else ""
    kept = [line for line in text.splitlines() if line.strip() and "The device supports" not in line]
    return "\n".join(kept[-lines:])


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status} and no result"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"crashed with {name}"
