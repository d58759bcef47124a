"""Accuracy that this host can't judge: it computes an int8 MaxPool wrongly, and no exact copy could be made."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_mnnquant.checks.operator_faults import X86_MAX_POOL, X86_MAX_POOL_REMEDY
from pytest_mnnquant.findings.finding import Finding, Result


def unjudged_pools(pools: Sequence[str]) -> Result:
    """An inconclusive result: the outputs on this host differ from those on a device."""
    message = f"this host computes {len(pools)} int8 MaxPool operators wrongly, and no exact copy of them could be made"
    finding = Finding("MNQ711", message, pools[0], cause=X86_MAX_POOL, fix=X86_MAX_POOL_REMEDY)
    return Result.from_findings("accuracy", [finding])
