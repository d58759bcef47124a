"""The process that a program runs in."""

from __future__ import annotations


def die_with_parent() -> None:
    """Make Linux kill this process if its parent ends for any reason (such as a killed CI job)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    except (OSError, AttributeError):
        pass  # Not Linux: only the parent's own clean-up remains.
