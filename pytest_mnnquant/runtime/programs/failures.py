"""The form of a failure in a result."""

from __future__ import annotations

# Values of `FailureKind` in runtime/jobs.py.
RAISED, REFUSED, MISSING_PACKAGE, WRONG_VERSION = "raised", "refused", "missing package", "wrong version"


class Refused(Exception):
    """The job was rejected; `kind` is the kind of failure."""

    def __init__(self, message: str, kind: str = REFUSED) -> None:
        super().__init__(message)
        self.kind = kind


def described(error: Exception) -> dict[str, str]:
    """A failure as JSON: its kind, a line for people, and the missing package."""
    if isinstance(error, Refused):
        return {"kind": error.kind, "message": str(error)}
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        return {"kind": MISSING_PACKAGE, "message": message, "package": (error.name or "").partition(".")[0]}
    return {"kind": RAISED, "message": message}
