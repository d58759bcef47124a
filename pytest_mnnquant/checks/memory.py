"""Memory: what the variant holds when it runs, against the float model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.run_metrics import MemoryMetrics
from pytest_mnnquant.measurements.timing import LOW, NORMAL, MemoryUse

# Weights that were made float at loading leave the session as large as the float model's.
_HELD: Final = 0.9
Used = Mapping[int, MemoryUse]


def check_memory(float_memory: Used, memory: Used, activations: bool, memory_mode: int = NORMAL) -> Result:
    """Record what MNN's session and its process hold in memory modes 0 (normal) and 2 (low).

    Fails if the variant can't run in mode 0 or in `memory_mode`, which the ratio is of. A weight-only variant that
    holds as much as the float model in mode 0 is reported: MNN makes its weights float when it loads them
    (`activations`: the variant is meant to run in int8).
    """
    metrics = MemoryMetrics(memory_mode, *_bytes(memory), *_bytes(float_memory))
    normal, low = memory[NORMAL], memory[LOW]
    measured, base = memory[memory_mode], float_memory[memory_mode]
    findings = []
    if normal.error:
        findings.append(Finding("MNQ201", f"running in memory mode 0 (normal): {normal.error}"))
    elif low.error:
        code = "MNQ201" if memory_mode == LOW else "MNQ903"
        findings.append(Finding(code, f"it can't run in memory mode 2 (low): {low.error}"))
    if measured.error or base.error or not base.session or not measured.session:
        if not findings:
            findings.append(Finding("MNQ003", f"the float model's memory is not known: {base.error or 'MNN says 0'}"))
        return Result.from_findings("memory", findings, metrics)
    metrics = dataclasses.replace(metrics, memory_ratio=measured.session / base.session)
    base = float_memory[NORMAL]
    if memory_mode == NORMAL and not activations and normal.session >= _HELD * base.session and not low.error:
        note = (
            f"in memory mode 0 (normal) MNN holds its weights as float: {_megabytes(normal.session)}, float "
            f"{_megabytes(base.session)}; in mode 2 (memory: low) {_megabytes(low.session)}"
        )
        metrics = dataclasses.replace(metrics, note=note)
    return Result.from_findings("memory", findings, metrics)


def _bytes(use: Used) -> tuple[int | None, int | None, int | None, int | None]:
    """Session and peak in memory mode 0, then in mode 2."""
    normal, low = use[NORMAL], use[LOW]
    return normal.known_session, normal.peak, low.known_session, low.peak


def _megabytes(count: int) -> str:
    return f"{count / (1 << 20):,.2f} MB"
