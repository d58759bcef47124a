"""The process that a program runs in."""

from __future__ import annotations


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, however that happens (a CI job that is cut off)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    except (OSError, AttributeError):
        pass  # Not Linux: the parent's own clean-up has to do.
