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

#: With a baseline file in use, the last check of each variant, and the one of the file itself.
BASELINE: Final = "baseline"
ENTRIES: Final = "entries"

#: The checks that judge what runs where it runs: on each target; and those that only a real device can answer too.
ON_TARGET: Final = ("execution", "accuracy")
ON_DEVICE: Final = (*ON_TARGET, "latency", "memory")
