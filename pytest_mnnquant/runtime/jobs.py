"""Runs one job in a child process with a folder and a time limit. Returns its result or raises its failure."""

from __future__ import annotations

import enum
import json
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from pytest_mnnquant.measurements.host import TargetMachine
from pytest_mnnquant.runtime.background import may_use_second_core
from pytest_mnnquant.runtime.command import Command
from pytest_mnnquant.runtime.standing import StandingCommand
from pytest_mnnquant.runtime.step_clock import note_child_peak

# Tasks that run in a process of their own: they measure time or memory, load another package of MNN, or are compared
# with a second time, which needs other addresses than a fork of the same process has.
_ALONE: Final = frozenset(
    {"convert", "quantize", "paired", "memory", "profile", "language_logits", "language_text", "language_speeds"}
)
_LOG_LINES: Final = 12
_PROTOCOL: Final = 1


class FailureKind(enum.Enum):
    """The kind of failure of a native step. Programs in child processes report some of them by these values."""

    #: The process ended by a signal.
    CRASHED = "crashed"
    #: The process did not end, or a connection did not answer, within the limit.
    TIMED_OUT = "timed out"
    #: The process ended without a result.
    EXITED = "exited"
    #: The program raised an exception.
    RAISED = "raised"
    #: The program rejected the job: files are missing or damaged.
    REFUSED = "refused"
    #: The Python that ran the program lacks a package.
    MISSING_PACKAGE = "missing package"
    #: The program runs with an unexpected version of MNN.
    WRONG_VERSION = "wrong version"
    #: The command could not be started.
    NOT_STARTED = "not started"
    #: No connection to the machine could be made.
    NO_CONNECTION = "no connection"
    #: The connection broke.
    LOST_CONNECTION = "lost connection"
    #: The disk has no space for the job.
    NO_SPACE = "no space"
    #: The returned data are damaged, or are not a result of the program.
    BAD_ANSWER = "bad answer"
    #: The inputs can't be used: the process was not started.
    BAD_INPUT = "bad input"
    #: The process ended normally, but wrote no usable output.
    BAD_OUTPUT = "bad output"


class NativeFailure(Exception):
    """A native step failed; `kind` says how.

    `what` is one line for people, `log` are the last lines that the step printed, `fix` is how to fix it (empty: not
    known), `package` is the name of a missing package, `operator` the operator that the step failed on, if known.
    """

    def __init__(
        self, kind: FailureKind, what: str, log: str = "", *, fix: str = "", package: str = "", operator: str = ""
    ) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.log = log
        self.fix = fix
        self.package = package
        self.operator = operator

    def reworded(self, what: str) -> NativeFailure:
        """The same failure with another `what`."""
        return NativeFailure(self.kind, what, self.log, fix=self.fix, package=self.package, operator=self.operator)

    def __str__(self) -> str:
        return f"{self.what}\nlast lines of its log:\n{self.log}" if self.log else self.what


class UnsupportedOperators(NativeFailure):
    """MNN's converter does not support the `operators` of a source; their kinds, as MNN prints them."""

    def __init__(self, what: str, operators: tuple[str, ...]) -> None:
        super().__init__(FailureKind.BAD_OUTPUT, what)
        self.operators = operators


@dataclass(frozen=True)
class Job:
    """A job for a child process: a `task` of its program with `arguments`, which travel as JSON.

    `what` names the step in messages ("converting net.onnx"), `who` the code that may crash; `timeout`
    is the limit in seconds without progress. `is_divisible`: a second process may run half of the samples.
    """

    task: str
    what: str
    timeout: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    who: str = "MNN"
    is_divisible: bool = False


@dataclass(frozen=True)
class JobResult:
    """The values of a job, besides the files in its folder; `machine` is the target, None for this machine."""

    values: dict[str, Any]
    machine: TargetMachine | None = None


class Launcher(Protocol):
    """Runs the programs of jobs."""

    def run(self, job_file: Path, timeout: float) -> int:
        """Run the job that a file describes, in its folder; returns the exit status, negative for a signal.

        Raises `subprocess.TimeoutExpired`, `OSError`, and `NativeFailure` if the launcher knows why the job has no exit
        status.
        """
        ...


def run_job(job: Job, folder: Path, launcher: Launcher | None = None) -> JobResult:
    """Run a job in a folder, on this machine unless the launcher runs it on another. Raises `NativeFailure`."""
    folder = folder.resolve()
    job_file, log_file, result_file = folder / "job.json", folder / "log.txt", folder / "result.json"
    for stale in (result_file, folder / "progress", log_file):
        stale.unlink(missing_ok=True)
    second = job.is_divisible and launcher is None and may_use_second_core()
    content = {"protocol": _PROTOCOL, "task": job.task, **job.arguments, **({"second": True} if second else {})}
    job_file.write_text(json.dumps(content), encoding="utf-8")
    try:
        status = (launcher or _launcher(job)).run(job_file, job.timeout)
    except NativeFailure as error:
        raise error.reworded(f"{job.what}: {error.what}") from None
    except subprocess.TimeoutExpired:
        reason = f"{job.what}: {_describe_silence(folder / 'progress', job.timeout)} (limit: --mnn-timeout)"
        raise NativeFailure(FailureKind.TIMED_OUT, reason, tail(log_file)) from None
    if status != 0 or not result_file.exists():
        kind = FailureKind.CRASHED if status < 0 else FailureKind.EXITED
        raise NativeFailure(kind, f"{job.what}: {job.who} {_describe_exit(status)}", tail(log_file))
    try:
        values: dict[str, Any] = dict(json.loads(result_file.read_text(encoding="utf-8")))
        failure = _reported_failure(values["error"], job, log_file) if "error" in values else None
    except (ValueError, TypeError, KeyError):
        reason = f"{job.what}: unexpected reply from the runner"
        raise NativeFailure(FailureKind.BAD_ANSWER, reason, tail(log_file)) from None
    if failure is not None:
        raise failure
    if (peak := values.get("peak_mb")) is not None:
        note_child_peak(float(peak))
    return JobResult(values)


def _launcher(job: Job) -> Launcher:
    """Runs MNN's programs on this machine."""
    return Command() if job.task in _ALONE else StandingCommand()


def _describe_silence(progress: Path, timeout: float) -> str:
    """How long a job made no progress, and how far it was; jobs of one step report none."""
    try:
        done, total, unit = progress.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return f"not finished after {timeout:g} s"
    return f"no progress for {timeout:g} s, after {done} of {total} {unit}"


def _reported_failure(error: Mapping[str, str], job: Job, log_file: Path) -> NativeFailure:
    """The failure in a program's result. Raises `ValueError`, `TypeError` or `KeyError` for a malformed one."""
    kind, package = FailureKind(error["kind"]), error.get("package", "")
    return NativeFailure(kind, f"{job.what}: {error['message']}", tail(log_file), package=package)


def tail(log_file: Path, lines: int = _LOG_LINES) -> str:
    """The last lines of a log, without MNN's lines about the device."""
    text = log_file.read_text(encoding="utf-8", errors="replace") if log_file.exists() else ""
    relevant = [line for line in text.splitlines() if line.strip() and "The device supports" not in line]
    return "\n".join(relevant[-lines:])


def _describe_exit(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status} and no result"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"crashed with {name}"
