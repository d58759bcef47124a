"""What machine a program runs on, and which versions are installed there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .failures import WRONG_VERSION, Refused


def machine_facts() -> dict[str, str]:
    """What machine this is, and which versions are here."""
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
    """The version of MNN: what MNN itself reports, else (old ones don't) that of its package; empty if neither does."""
    import MNN

    if hasattr(MNN, "version"):
        return str(MNN.version())
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("MNN")
    except PackageNotFoundError:
        return ""


def check_mnn(expected: str) -> None:
    """Raise `Refused` for another MNN than is expected, if its version is known."""
    installed = mnn_version()
    if installed not in ("", expected):
        raise Refused(f"MNN {installed} is there, expected was {expected}", WRONG_VERSION)


def cpu_info() -> str:
    """What Linux reports of the first processor; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n\n")[0]
