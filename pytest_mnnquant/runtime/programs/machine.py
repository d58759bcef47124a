"""The machine that runs a program, and the installed versions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .failures import WRONG_VERSION, Refused


def machine_facts() -> dict[str, str]:
    """This machine and its versions."""
    import numpy as np

    return {
        "node": os.uname().nodename,
        "machine": os.uname().machine,
        "cpu": cpu_info(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "numpy": np.__version__,
        "mnn": mnn_version(),
    }


def mnn_version() -> str:
    """The version of MNN, from MNN itself or (for old versions) from its package; empty if both have none."""
    import MNN

    if hasattr(MNN, "version"):
        return str(MNN.version())
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("MNN")
    except PackageNotFoundError:
        return ""


def check_mnn(expected: str) -> None:
    """Raise `Refused` if the version of MNN is known and differs from the expected one."""
    installed = mnn_version()
    if installed not in ("", expected):
        raise Refused(f"MNN {installed} is installed, expected {expected}", WRONG_VERSION)


def cpu_info() -> str:
    """Linux's information about the first processor; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n\n")[0]
