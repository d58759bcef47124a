"""Accuracy that this machine can't judge: an int8 MaxPool that it gets wrong, and that no copy stands in for."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_mnnquant.checks.operator_faults import X86_MAX_POOL, X86_MAX_POOL_REMEDY
from pytest_mnnquant.findings.finding import Finding, Result


def unjudged_pools(pools: Sequence[str]) -> Result:
    """An inconclusive result: the outputs on this machine are not those of a device."""
    message = (
        f"{len(pools)} int8 MaxPool ran that this machine pools wrongly, and that could not be made exact in a copy"
    )
    return Result.from_findings(
        "accuracy", [Finding("MNQ711", message, pools[0], cause=X86_MAX_POOL, fix=X86_MAX_POOL_REMEDY)]
    )
