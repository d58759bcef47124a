"""Accuracy that this machine can't judge: an int8 MaxPool that it gets wrong, and that no copy stands in for."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, Result

_CAUSE = Cause(
    "max-pool-compares-signed",
    "MNN's int8 MaxPool on x86 compares offset bytes as signed numbers; ARM's does not",
)


def unjudged_pools(pools: Sequence[str]) -> Result:
    """An inconclusive result: the outputs on this machine are not those of a device."""
    message = (
        f"{len(pools)} int8 MaxPool ran that this machine pools wrongly, and that could not be made exact in a copy"
    )
    fix = "judge on ARM: --mnn-target=aarch64 (pytest-mnnquant target add aarch64)"
    return Result.from_findings("accuracy", [Finding("MNQ711", message, pools[0], cause=_CAUSE, fix=fix)])
