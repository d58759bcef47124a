"""The process that a program runs in."""

from __future__ import annotations

import os
from pathlib import Path

#: The environment variable with the id of the process that started this one.
PARENT = "MNNQUANT_PARENT"


def peak_mb() -> float | None:
    """The peak of the memory of this process, in MiB; None on systems without /proc.

    `ru_maxrss` is not it: for a new process it starts at the memory of its parent.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(text.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, ValueError, IndexError):
        return None


def given_parent() -> int:
    """The id of the parent from the environment, which no child of this process inherits; 0 if it is not given."""
    return int(os.environ.pop(PARENT, "0"))


def die_with_parent(parent: int = 0) -> None:
    """Make Linux kill this process if its parent ends for any reason (such as a killed CI job).

    Ends at once if the process `parent` is no longer the parent: it has ended before this was set up.
    """
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    except (OSError, AttributeError):
        return  # Not Linux: only the parent's own clean-up remains.
    if parent and os.getppid() != parent:
        os._exit(1)
