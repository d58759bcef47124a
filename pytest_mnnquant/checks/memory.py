"""Memory: what the variant holds when it runs, against the float model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pytest_mnnquant.checks.finding import Finding, Result, judge
from pytest_mnnquant.runtime.timing import LOW, NORMAL, MemoryUse

# Weights that were made float at loading leave the session as large as the float model's.
_HELD: Final = 0.9
Used = Mapping[int, MemoryUse]


def check_memory(float_use: Used, use: Used, activations: bool) -> Result:
    """Record what MNN's session and its process hold in memory modes 0 (normal) and 2 (low).

    Fails where the variant can't run in mode 0. A weight-only variant that holds as much as the float model in mode 0
    is told: MNN makes its weights float when it loads them (`activations`: the variant is meant to run in int8).
    """
    normal, low, base = use[NORMAL], use[LOW], float_use[NORMAL]
    metrics: dict[str, Any] = {
        "session_bytes": normal.session if not normal.error else None,
        "session_bytes_low": low.session if not low.error else None,
        "float_session_bytes": base.session if not base.error else None,
        "peak_bytes": normal.peak,
        "peak_bytes_low": low.peak,
        "float_peak_bytes": base.peak,
    }
    findings = []
    if normal.error:
        findings.append(Finding("MNQ201", f"running in memory mode 0 (normal): {normal.error}"))
    elif low.error:
        findings.append(Finding("MNQ903", f"it can't run in memory mode 2 (low): {low.error}"))
    if normal.error or base.error or not base.session or not normal.session:
        if not findings:
            findings.append(Finding("MNQ003", f"the float model's memory is not known: {base.error or 'MNN says 0'}"))
        return judge("memory", findings, metrics)
    metrics["memory_ratio"] = normal.session / base.session
    if not activations and normal.session >= _HELD * base.session and not low.error:
        metrics["note"] = (
            f"in memory mode 0 (normal) MNN holds its weights as float: {_megabytes(normal.session)}, float "
            f"{_megabytes(base.session)}; in mode 2 (memory: low) {_megabytes(low.session)}"
        )
    return judge("memory", findings, metrics)


def _megabytes(count: int) -> str:
    return f"{count / (1 << 20):,.2f} MB"
