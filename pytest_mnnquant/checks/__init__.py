"""Checks judge evidence that is handed to them: pure functions that run nothing."""

from typing import Final

#: The checks of a variant, in order of dependence.
CHECKS: Final = (
    "conversion",
    "params",
    "coverage",
    "weights",
    "execution",
    "size",
    "bundle",
    "calibration",
    "accuracy",
    "latency",
    "memory",
)
