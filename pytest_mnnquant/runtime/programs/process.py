"""The process that a program runs in."""

from __future__ import annotations

from pathlib import Path


def peak_mb() -> float | None:
    """The peak of the memory of this process, in MiB; None on systems without /proc.

    `ru_maxrss` is not it: for a new process it starts at the memory of its parent.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(text.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, ValueError, IndexError):
        return None


def die_with_parent() -> None:
    """Make Linux kill this process if its parent ends for any reason (such as a killed CI job)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    except (OSError, AttributeError):
        pass  # Not Linux: only the parent's own clean-up remains.
