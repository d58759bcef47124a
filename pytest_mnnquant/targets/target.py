"""A target: a machine, real or emulated, that runs the programs of jobs. Sends jobs and checks the results."""

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
#: Why a target gives no evidence of executed int8.
NO_TRACE: Final = "the op trace of MNN {mnn} does not mark int8 operators (MNN 3.2.4 is the first that does)"
#: Why a target gives neither time nor memory.
NO_TIME: Final = "emulation does not show the speed of a device"
UNSAID: Final = "its configuration does not mark it as a device (device = true)"


def installed_mnn() -> str:
    """The version of MNN on this machine."""
    return version("mnn")


class NoTarget(ValueError):
    """The target is unknown or not set up. The message is one line that names the command to fix it."""


class TargetFailure(NativeFailure):
    """A target failed to run a job; `target` is its name."""

    def __init__(self, target: str, kind: FailureKind, what: str, log: str = "", fix: str = "") -> None:
        fix = fix or f"check the target: pytest-mnnquant target check {target}"
        super().__init__(kind, what, log, fix=fix)
        self.target = target


class TargetLauncher(Launcher, Protocol):
    """A launcher that may hold a process or a connection."""

    def close(self) -> None:
        """End the process or the connection that waits for jobs."""
        ...


@dataclass(frozen=True)
class PythonCommand:
    """Runs each job with a command that starts Python on the target; `words` gives it for the job's folder."""

    words: Callable[[Path], Sequence[str]]

    def run(self, job_file: Path, timeout: float) -> int:
        """Run the programs in a job's folder; returns the exit status, negative for a signal.

        Raises `subprocess.TimeoutExpired` after `timeout` seconds without progress, and `OSError` if the
        command can't be started.
        """
        folder = job_file.parent
        return Command(folder / PROGRAMS.name, self.words(folder)).run(job_file, timeout)

    def close(self) -> None:
        """Do nothing: each job is a process of its own."""


@dataclass(frozen=True)
class Target:
    """A machine, real or emulated, where `launcher` runs the programs of jobs.

    `mnn` is the version expected on the target. An `emulated` target computes the same values as the device, but its
    speed says nothing about the device; time and memory are measured only if it `is_device`.
    """

    name: str
    launcher: TargetLauncher
    mnn: str = field(default_factory=installed_mnn)
    emulated: bool = False
    is_device: bool = False

    def close(self) -> None:
        """End the process or the connection that waits for jobs."""
        self.launcher.close()

    def facts(self, machine: TargetMachine) -> TargetFacts:
        """The target for the report, from the facts that came with a result."""
        host, versions = machine.host, (machine.mnn, machine.numpy, machine.python)
        return TargetFacts(self.name, self.emulated, host.machine, *versions, host.used)

    def send(self, job: Job, folder: Path) -> JobResult:
        """Copy everything that a job needs into its folder, run the job on the target, and check the returned files.

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
            reason = f"{packed.what}: unexpected reply from the runner"
            raise TargetFailure(self.name, FailureKind.BAD_ANSWER, reason, tail(folder / "log.txt")) from None
        self._check_returned(files, folder, packed.what)
        return JobResult(values, machine)

    def _failure(self, error: NativeFailure) -> TargetFailure:
        fix = error.fix or _fix(error, self.mnn)
        if "/" not in self.name:  # An address has no table yet; the user chooses the name of a new one.
            fix = fix.replace("targets.NAME", f"targets.{self.name}")
        return TargetFailure(self.name, error.kind, error.what, error.log, fix)

    def _check_returned(self, files: Mapping[str, str], folder: Path, what: str) -> None:
        for name, expected in files.items():
            if not (folder / name).is_file() or sha256(folder / name) != expected:
                reason = f"{what}: {name} was damaged on its way back from the target"
                raise TargetFailure(self.name, FailureKind.BAD_ANSWER, reason)


def _fix(error: NativeFailure, mnn: str) -> str:
    """The fix on the target for a failure; `mnn` is the version expected on the target. Empty: not known."""
    if error.kind is FailureKind.MISSING_PACKAGE and error.package in ("MNN", "numpy"):
        package = f"MNN=={mnn}" if error.package == "MNN" else error.package
        return f"install it on the target: python3 -m pip install {package}; or choose another Python of that machine"
    if error.kind is FailureKind.WRONG_VERSION:
        return (
            f"install MNN {mnn} on the target; if the app on the device has the other version, declare it: "
            'mnn = "VERSION" in [tool.mnnquant.targets.NAME]'
        )
    return ""
