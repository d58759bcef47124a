"""A target: a place that runs MNN's runner on a folder, and what is sent there and comes back."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.runtime.child import RUNNER, NativeFailure, run_job, tail
from pytest_mnnquant.runtime.execute import Send
from pytest_mnnquant.runtime.host import features_used
from pytest_mnnquant.runtime.runner import sha256  # Both ends of the protocol hash alike.
from pytest_mnnquant.runtime.standing import Standing

HOST: Final = "host"
#: What stands for the job's folder in a command of one's own.
FOLDER: Final = "{folder}"
#: Why there is no evidence of what ran there.
NO_TRACE: Final = "the op trace of MNN {mnn} does not tell int8 operators (3.2.4 is the first that does)"
_TELLS: Final = (3, 2, 4)


class NoTarget(ValueError):
    """There is no such target, or it is not set up; one line says so and names the command that mends it."""


class TargetFailure(NativeFailure):
    """A target did not do a job; `target` is its name, `place` what is known of it."""

    def __init__(self, target: str, what: str, log: str = "") -> None:
        super().__init__(what, log)
        self.target = target


@dataclass(frozen=True)
class Place:
    """What a target told of itself with its last result; `int8` are the instructions that MNN's kernels use there."""

    machine: str = ""
    mnn: str = ""
    numpy: str = ""
    python: str = ""
    int8: tuple[str, ...] = ()

    @property
    def tells_int8(self) -> bool:
        """Whether this MNN's op trace tells which operators ran in int8."""
        numbers = self.mnn.split(".")
        return all(part.isdigit() for part in numbers) and tuple(map(int, numbers)) >= _TELLS


@dataclass
class Target:
    """A place that runs the runner. `command` gives the words that stand for Python there, for a job's folder.

    What is `emulated` computes what the device computes, in a time that says nothing about it. `standing` is a runner
    that waits for jobs there.
    """

    name: str
    command: Callable[[Path], Sequence[str]]
    emulated: bool = False
    standing: Standing | None = None
    place: Place = field(default_factory=Place)

    @property
    def send(self) -> Send:
        """Has a job run there; for `runtime.execute`. Raises `TargetFailure`."""
        return self._run_job

    def close(self) -> None:
        """End what waits for jobs."""
        if self.standing is not None:
            self.standing.close()

    def _run_job(self, task: str, folder: Path, *, timeout: float, what: str, **job: Any) -> dict[str, Any]:
        """Put all that the job needs into its folder, run it, and look at what came back."""
        folder = folder.resolve()
        shutil.copyfile(RUNNER, folder / RUNNER.name)
        inputs = {name: _brought(Path(path), folder) for name, path in job.pop("inputs", {}).items()}
        names = [*inputs.values()]
        if "model" in job:
            job["model"] = _brought(Path(job["model"]), folder)
            names += [job["model"], job["model"] + ".weight"]
        if "given" in job:
            job["given"] = _brought(Path(job["given"]), folder)
            names.append(job["given"])
        sent = {name: sha256(folder / name) for name in names if (folder / name).is_file()}
        how: dict[str, Any] = {"program": folder / RUNNER.name, "python": self.command(folder), "timeout": timeout}
        how |= {"what": f"{self.name}: {what}", "who": "the runner", "standing": self.standing}
        try:
            result = run_job(task, folder, sent=sent, inputs=inputs, **how, **job)
        except NativeFailure as error:
            raise TargetFailure(self.name, error.what, error.log) from None
        except OSError as error:
            program = how["python"][0]
            raise TargetFailure(self.name, f"{self.name}: {program} can't be run: {error.strerror}") from None
        self._check_returned(result, folder, what)
        told = result["place"]
        self.place = Place(**told, int8=features_used(folder / "log.txt"))
        return result

    def _check_returned(self, result: Mapping[str, Any], folder: Path, what: str) -> None:
        if "files" not in result or "place" not in result:
            told = f"{self.name}: {what}: what came back is no answer of our runner"
            raise TargetFailure(self.name, told, tail(folder / "log.txt"))
        for name, expected in result["files"].items():
            if not (folder / name).is_file() or sha256(folder / name) != expected:
                raise TargetFailure(self.name, f"{self.name}: {what}: {name} did not come back as it was made there")


def own_command(name: str, text: str) -> Target:
    """A target that a user's command reaches: it is run as Python would be, with `{folder}` as the job's folder.

    Raises `NoTarget`.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise NoTarget(f"[tool.mnnquant.targets.{name}]: command: {error}") from None
    if not words:
        raise NoTarget(f"[tool.mnnquant.targets.{name}]: the key 'command' is empty")
    return Target(name, lambda folder: [word.replace(FOLDER, str(folder)) for word in words])


def _brought(path: Path, folder: Path) -> str:
    """The name of a file in the job's folder; copied there if it lies elsewhere, with its weights."""
    path = path.resolve()
    if path.parent != folder:
        for one in (path, path.with_name(path.name + ".weight")):
            if one.is_file():
                shutil.copyfile(one, folder / one.name)
    return path.name
