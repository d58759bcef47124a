"""A target: a place that runs MNN's runner on a folder, and what is sent there and comes back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.findings.check_metrics import TargetFacts
from pytest_mnnquant.measurements.host import Host
from pytest_mnnquant.runtime.host import host_told
from pytest_mnnquant.runtime.jobs import RUNNER, FailureKind, NativeFailure, Ready, run_job, tail
from pytest_mnnquant.runtime.options import Send
from pytest_mnnquant.runtime.programs.runner import sha256  # Both ends of the protocol hash alike.

HOST: Final = "host"
#: Why there is no evidence of what ran there.
NO_TRACE: Final = "the op trace of MNN {mnn} does not tell int8 operators (3.2.4 is the first that does)"
#: Why neither time nor memory is measured there.
NO_TIME: Final = "emulation says nothing of a device's time"
UNSAID: Final = "its configuration does not say that it is a device (device = true)"
_TELLS: Final = (3, 2, 4)


def own_mnn() -> str:
    """The version of MNN on this machine."""
    return version("mnn")


class NoTarget(ValueError):
    """There is no such target, or it is not set up; one line says so and names the command that mends it."""


class TargetFailure(NativeFailure):
    """A target did not do a job; `target` is its name."""

    def __init__(self, target: str, kind: FailureKind, what: str, log: str = "", fix: str = "") -> None:
        fix = fix or f"see what works there: pytest-mnnquant target check {target}"
        super().__init__(kind, what, log, fix=fix)
        self.target = target


@dataclass(frozen=True)
class Place:
    """What a target told of itself with its last result."""

    host: Host | None = None
    mnn: str = ""
    numpy: str = ""
    python: str = ""

    @property
    def machine(self) -> str:
        """Its architecture."""
        return self.host.machine if self.host else ""

    @property
    def int8(self) -> tuple[str, ...]:
        """The instructions that MNN's int8 kernels use there."""
        return self.host.used if self.host else ()

    @property
    def tells_int8(self) -> bool:
        """Whether this MNN's op trace tells which operators ran in int8."""
        numbers = self.mnn.split(".")
        return all(part.isdigit() for part in numbers) and tuple(map(int, numbers)) >= _TELLS


@dataclass
class Target:
    """A place that runs the runner: by `ready`, or by `command`, which gives the words that stand for Python there.

    `mnn` is the version that is expected there. What is `emulated` computes what the device computes, in a time that
    says nothing about it; time and memory are measured where `is_device`.
    """

    name: str
    command: Callable[[Path], Sequence[str]] = lambda _folder: ()
    ready: Ready | None = None
    mnn: str = field(default_factory=own_mnn)
    emulated: bool = False
    is_device: bool = False
    place: Place = field(default_factory=Place)

    @property
    def facts(self) -> TargetFacts:
        """What it reported about itself with its last result."""
        place = self.place
        return TargetFacts(self.name, self.emulated, place.machine, place.mnn, place.numpy, place.python, place.int8)

    @property
    def send(self) -> Send:
        """Has a job run there; for `runtime.execute`. Raises `TargetFailure`."""
        return self._run_job

    def close(self) -> None:
        """End what waits for jobs."""
        if self.ready is not None:
            self.ready.close()

    def _run_job(
        self, task: str, folder: Path, *, timeout: float, what: str, program: Path = RUNNER, **job: Any
    ) -> dict[str, Any]:
        """Put all that the job needs into its folder, run it, and look at what came back."""
        folder, command = folder.resolve(), self.command(folder.resolve())
        for path in {RUNNER, program}:
            shutil.copyfile(path, folder / path.name)
        job, sent = _packed(job, folder)
        how: dict[str, Any] = {"program": folder / program.name, "python": command, "ready": self.ready}
        how |= {"what": f"{self.name}: {what}", "who": "the runner", "timeout": timeout}
        try:
            result = run_job(task, folder, sent=sent, mnn=self.mnn, **how, **job)
        except NativeFailure as error:
            fix = error.fix or _fix(error, self.mnn)
            if "/" not in self.name:  # An address has no table yet, and would get one of any name.
                fix = fix.replace("targets.NAME", f"targets.{self.name}")
            raise TargetFailure(self.name, error.kind, error.what, error.log, fix) from None
        except OSError as error:
            told = f"{self.name}: {command[0] if command else what} can't be run: {error.strerror}"
            raise TargetFailure(self.name, FailureKind.NOT_STARTED, told) from None
        self._check_returned(result, folder, what)
        told = result["place"]
        host = host_told(told, folder / "log.txt")
        self.place = Place(host, told["mnn"], told["numpy"], told["python"])
        return result

    def _check_returned(self, result: Mapping[str, Any], folder: Path, what: str) -> None:
        if "files" not in result or "place" not in result:
            told = f"{self.name}: {what}: what came back is no answer of our runner"
            raise TargetFailure(self.name, FailureKind.BAD_ANSWER, told, tail(folder / "log.txt"))
        for name, expected in result["files"].items():
            if not (folder / name).is_file() or sha256(folder / name) != expected:
                told = f"{self.name}: {what}: {name} did not come back as it was made there"
                raise TargetFailure(self.name, FailureKind.BAD_ANSWER, told)


def _packed(job: dict[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The job with all files that it names in its folder, by names that are none of theirs; and their SHA-256."""
    packed = dict(job)
    if "inputs" in job:
        packed["inputs"] = {name: _brought(path, folder) for name, path in job["inputs"].items()}
    if "model" in job:
        packed["model"] = _brought(job["model"], folder, "model.mnn")
    if "models" in job:
        packed["models"] = [_brought(path, folder, f"model{place}.mnn") for place, path in enumerate(job["models"])]
    if "given" in job:
        packed["given"] = _brought(job["given"], folder)
    models = [packed["model"]] if "model" in packed else packed.get("models", [])
    names = [*packed.get("inputs", {}).values(), *models, *(f"{name}.weight" for name in models)]
    names += [packed["given"]] if "given" in packed else []
    return packed, {name: sha256(folder / name) for name in names if (folder / name).is_file()}


def _brought(path: str, folder: Path, name: str = "") -> str:
    """The name of a file in the job's folder; copied there if it lies elsewhere, with its weights."""
    found = Path(path).resolve()
    if found.parent == folder:
        return found.name
    for end in ("", ".weight"):
        one = found.with_name(found.name + end)
        if one.is_file():
            shutil.copyfile(one, folder / ((name or found.name) + end))
    return name or found.name


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
