"""MNN's aarch64 wheel on this machine, under qemu-user: its folder, its command, its processors."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pytest_mnnquant.runtime.command import PROGRAMS
from pytest_mnnquant.runtime.worker import Worker
from pytest_mnnquant.targets.target import NoTarget, Target

NAME: Final = "aarch64"
#: Three families of MNN's kernels: plain NEON; with dot products; with int8 matrix products and SVE2.
CPUS: Final = ("cortex-a53", "cortex-a76", "max")
USUAL_CPU: Final = "cortex-a76"
QEMU: Final = "qemu-aarch64-static"
_QEMUS: Final = (QEMU, "qemu-aarch64")
_FORM: Final = re.compile(rf"{NAME}(?:-(?P<mnn>\d+(?:\.\d+)+))?(?::(?P<cpu>[\w.\-]+))?")
# Variables that would make the ARM Python load this machine's libraries.
_UNSET: Final = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONSTARTUP")


class Emulator:
    """An ARM system in a folder, with one version of MNN."""

    def __init__(self, mnn: str | None = None, folder: Path | None = None) -> None:
        self.host_mnn = version("mnn")
        self.mnn = mnn or self.host_mnn
        self.folder = folder or cache_folder() / NAME

    @property
    def name(self) -> str:
        """The target's name without a processor. It includes MNN's version if this machine has another one."""
        return NAME if self.mnn == self.host_mnn else f"{NAME}-{self.mnn}"

    @property
    def add_command(self) -> str:
        """The command that sets the emulator up."""
        return f"pytest-mnnquant target add {NAME}" + ("" if self.mnn == self.host_mnn else f" --mnn {self.mnn}")

    @property
    def root(self) -> Path:
        """The unpacked Debian packages."""
        return self.folder / "root"

    @property
    def site(self) -> Path:
        """The unpacked wheels."""
        return self.folder / f"mnn-{self.mnn}"

    @property
    def qemu(self) -> Path | None:
        """This system's qemu, else the unpacked one; None if both are missing."""
        installed = next((path for name in _QEMUS if (path := shutil.which(name))), None)
        if installed:
            return Path(installed)
        unpacked = self.folder / "qemu" / "usr" / "bin" / QEMU
        return unpacked if unpacked.is_file() else None

    @property
    def python(self) -> Path | None:
        """The ARM Python."""
        places = (self.root / "usr" / "bin").glob("python3.*")
        return next((path for path in places if re.fullmatch(r"python3\.\d+", path.name)), None)

    @property
    def missing(self) -> str:
        """The first missing part; empty if the emulator is complete."""
        if self.qemu is None:
            return QEMU
        if self.python is None:
            return "an ARM Python"
        return "" if (self.site / "MNN").is_dir() else f"MNN {self.mnn} for aarch64"

    def python_command(self, cpu: str) -> Sequence[str]:
        """The words of the command that runs Python on the emulator. Raises `NoTarget`."""
        if self.missing:
            raise NoTarget(f"{self.name} is not set up ({self.missing} is missing); set it up with: {self.add_command}")
        unset = [word for name in _UNSET for word in ("-U", name)]
        words = [str(self.qemu), "-cpu", cpu, "-L", str(self.root), "-E", f"PYTHONPATH={self.site}", *unset]
        return [*words, str(self.python), "-s"]

    def target(self, cpu: str = "") -> Target:
        """The target that emulates a processor. Raises `NoTarget` if it is not set up or qemu has no `cpu`."""
        words = self.python_command(cpu or USUAL_CPU)
        if cpu not in ("", *CPUS) and cpu not in (known := known_cpus(str(self.qemu))):
            raise NoTarget(f"{self.name}:{cpu}: unknown processor {cpu!r}; qemu emulates: {', '.join(known)}")
        name = f"{self.name}:{cpu}" if cpu else self.name
        return Target(name, Worker([*words, str(PROGRAMS)]), mnn=self.mnn, emulated=True)


def emulator_target(name: str) -> Target | None:
    """The target of this name; None if the name is not of this form. Raises `NoTarget`."""
    match = _FORM.fullmatch(name)
    if match is None:
        return None
    return dataclasses.replace(Emulator(match["mnn"]).target(match["cpu"] or ""), name=name)


@cache
def known_cpus(qemu: str) -> tuple[str, ...]:
    """The 64-bit processors that qemu emulates."""
    done = subprocess.run([qemu, "-cpu", "help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    names = [words[0] for line in done.stdout.splitlines()[1:] if (words := line.split())]
    return tuple(name for name in names if re.match(r"cortex-a(3[45]|[5-9]\d|\d{3})|neoverse|a64fx|max", name))


def cache_folder() -> Path:
    """The user's cache folder for emulators (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-mnnquant"
