"""The names of the checks, in the order of the evidence."""

from __future__ import annotations

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
