"""A target: a machine, real or emulated, that runs the programs of jobs; what it is sent and what comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol

from pytest_mnnquant.findings.accuracy_metrics import TargetFacts
from pytest_mnnquant.measurements.host import TargetMachine
from pytest_mnnquant.runtime.command import PROGRAMS, Command
from pytest_mnnquant.runtime.host import target_machine
from pytest_mnnquant.runtime.jobs import FailureKind, Job, JobResult, Launcher, NativeFailure, run_job, tail
from pytest_mnnquant.runtime.programs.transfer import sha256
from pytest_mnnquant.targets.packing import pack

HOST: Final = "host"
#: Why there is no evidence of what ran there.
NO_TRACE: Final = "the op trace of MNN {mnn} does not tell int8 operators (3.2.4 is the first that does)"
#: Why neither time nor memory is measured there.
NO_TIME: Final = "emulation says nothing of a device's time"
UNSAID: Final = "its configuration does not say that it is a device (device = true)"


def installed_mnn() -> str:
    """The version of MNN on this machine."""
    return version("mnn")


class NoTarget(ValueError):
    """There is no such target, or it is not set up; one line says so and names the command that fixes it."""


class TargetFailure(NativeFailure):
    """A target did not do a job; `target` is its name."""

    def __init__(self, target: str, kind: FailureKind, what: str, log: str = "", fix: str = "") -> None:
        fix = fix or f"see what works there: pytest-mnnquant target check {target}"
        super().__init__(kind, what, log, fix=fix)
        self.target = target


class TargetLauncher(Launcher, Protocol):
    """A launcher that may hold a process or a connection."""

    def close(self) -> None:
        """End what waits for jobs."""
        ...


@dataclass(frozen=True)
class PythonCommand:
    """Runs each job by the words of a command that stand for Python on the target, given the job's folder."""

    words: Callable[[Path], Sequence[str]]

    def run(self, job_file: Path, timeout: float) -> int:
        """Run the programs in a job's folder; returns the exit status, negative for a signal.

        Raises `subprocess.TimeoutExpired` after `timeout` seconds, and `OSError` if the command can't be started.
        """
        folder = job_file.parent
        return Command(folder / PROGRAMS.name, self.words(folder)).run(job_file, timeout)

    def close(self) -> None:
        """Do nothing: each job is a process of its own."""


@dataclass(frozen=True)
class Target:
    """A machine, real or emulated, where `launcher` runs the programs of jobs.

    `mnn` is the version that is expected there. What is `emulated` computes what the device computes, in a time that
    says nothing about it; time and memory are measured if it `is_device`.
    """

    name: str
    launcher: TargetLauncher
    mnn: str = field(default_factory=installed_mnn)
    emulated: bool = False
    is_device: bool = False

    def close(self) -> None:
        """End what waits for jobs."""
        self.launcher.close()

    def facts(self, machine: TargetMachine) -> TargetFacts:
        """The target in the report, as it reported itself with a result."""
        host, versions = machine.host, (machine.mnn, machine.numpy, machine.python)
        return TargetFacts(self.name, self.emulated, host.machine, *versions, host.used)

    def send(self, job: Job, folder: Path) -> JobResult:
        """Put all that a job needs into its folder, run it on the target, and check what came back.

        Raises `TargetFailure`.
        """
        folder = folder.resolve()
        packed = dataclasses.replace(pack(job, folder, self.mnn), what=f"{self.name}: {job.what}", who="the runner")
        try:
            values = run_job(packed, folder, self.launcher).values
        except NativeFailure as error:
            raise self._failure(error) from None
        except OSError as error:
            reason = f"{self.name}: {error.filename or job.what} can't be run: {error.strerror}"
            raise TargetFailure(self.name, FailureKind.NOT_STARTED, reason) from None
        try:
            machine, files = target_machine(values["machine"], folder / "log.txt"), dict(values["files"])
        except (ValueError, TypeError, KeyError):
            reason = f"{packed.what}: what came back is no answer of our runner"
            raise TargetFailure(self.name, FailureKind.BAD_ANSWER, reason, tail(folder / "log.txt")) from None
        self._check_returned(files, folder, packed.what)
        return JobResult(values, machine)

    def _failure(self, error: NativeFailure) -> TargetFailure:
        fix = error.fix or _fix(error, self.mnn)
        if "/" not in self.name:  # An address has no table yet, and would get one of any name.
            fix = fix.replace("targets.NAME", f"targets.{self.name}")
        return TargetFailure(self.name, error.kind, error.what, error.log, fix)

    def _check_returned(self, files: Mapping[str, str], folder: Path, what: str) -> None:
        for name, expected in files.items():
            if not (folder / name).is_file() or sha256(folder / name) != expected:
                reason = f"{what}: {name} did not come back as it was made there"
                raise TargetFailure(self.name, FailureKind.BAD_ANSWER, reason)


def _fix(error: NativeFailure, mnn: str) -> str:
    """What to do on the target about a failure; `mnn` is the version that is expected there. Empty: not known."""
    if error.kind is FailureKind.MISSING_PACKAGE and error.package in ("MNN", "numpy"):
        package = f"MNN=={mnn}" if error.package == "MNN" else error.package
        return (
            f"install it for the Python there: python3 -m pip install {package}; or name another Python of that machine"
        )
    if error.kind is FailureKind.WRONG_VERSION:
        return (
            f"install MNN {mnn} there; where the app on the device has that other version, say so: "
            'mnn = "VERSION" in [tool.mnnquant.targets.NAME]'
        )
    return ""
