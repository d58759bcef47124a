"""MNN's aarch64 wheel on this machine, under qemu-user: where it lies, how it is run, which processors there are."""

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
# What would make the ARM Python look for this machine's libraries.
_UNSET: Final = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONSTARTUP")


class Emulator:
    """An ARM system in a folder, and MNN of one version in it."""

    def __init__(self, mnn: str | None = None, folder: Path | None = None) -> None:
        self.host_mnn = version("mnn")
        self.mnn = mnn or self.host_mnn
        self.folder = folder or cache_folder() / NAME

    @property
    def name(self) -> str:
        """The target's name, without a processor: it has MNN's version if that is not the one of this machine."""
        return NAME if self.mnn == self.host_mnn else f"{NAME}-{self.mnn}"

    @property
    def add_command(self) -> str:
        """The command that sets it up."""
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
        """This system's qemu, else the one that was unpacked; None if there is none."""
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
        """What is missing; empty if nothing is."""
        if self.qemu is None:
            return QEMU
        if self.python is None:
            return "an ARM Python"
        return "" if (self.site / "MNN").is_dir() else f"MNN {self.mnn} for aarch64"

    def python_command(self, cpu: str) -> Sequence[str]:
        """The words of the command that stands for Python. Raises `NoTarget`."""
        if self.missing:
            raise NoTarget(f"{self.name} is not set up, there is no {self.missing}: {self.add_command}")
        unset = [word for name in _UNSET for word in ("-U", name)]
        words = [str(self.qemu), "-cpu", cpu, "-L", str(self.root), "-E", f"PYTHONPATH={self.site}", *unset]
        return [*words, str(self.python), "-s"]

    def target(self, cpu: str = "") -> Target:
        """The target that runs on a processor. Raises `NoTarget` if it is not set up or qemu has no such one."""
        words = self.python_command(cpu or USUAL_CPU)
        if cpu not in ("", *CPUS) and cpu not in (known := known_cpus(str(self.qemu))):
            raise NoTarget(f"{self.name}:{cpu}: qemu knows no processor {cpu!r}; it knows: {', '.join(known)}")
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
    """The 64-bit processors that qemu knows."""
    done = subprocess.run([qemu, "-cpu", "help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    names = [words[0] for line in done.stdout.splitlines()[1:] if (words := line.split())]
    return tuple(name for name in names if re.match(r"cortex-a(3[45]|[5-9]\d|\d{3})|neoverse|a64fx|max", name))


def cache_folder() -> Path:
    """The user's cache folder for what is set up once (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-mnnquant"
