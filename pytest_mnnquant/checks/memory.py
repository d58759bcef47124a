"""Memory: how much the running variant uses, compared with the float model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.run_metrics import MemoryMetrics
from pytest_mnnquant.measurements.timing import LOW, NORMAL, MemoryUse

# If MNN expands the weights to float when it loads them, the session is about as large as the float model's.
_HELD: Final = 0.9
Used = Mapping[int, MemoryUse]


def check_memory(float_memory: Used, memory: Used, activations: bool, memory_mode: int = NORMAL) -> Result:
    """Record the memory of MNN's session and of its process in memory modes 0 (normal) and 2 (low), in bytes.

    Fails if the variant can't run in mode 0 or in `memory_mode`, in which the ratio is taken. A note reports a
    weight-only variant that uses as much as the float model in mode 0: MNN expands its weights to float
    (`activations`: the variant is intended to run in int8).
    """
    metrics = MemoryMetrics(memory_mode, *_bytes(memory), *_bytes(float_memory))
    normal, low = memory[NORMAL], memory[LOW]
    measured, base = memory[memory_mode], float_memory[memory_mode]
    findings = []
    if normal.error:
        findings.append(Finding("MNQ201", f"the variant can't run in memory mode 0 (normal): {normal.error}"))
    elif low.error:
        code = "MNQ201" if memory_mode == LOW else "MNQ903"
        findings.append(Finding(code, f"the variant can't run in memory mode 2 (low): {low.error}"))
    if measured.error or base.error or not base.session or not measured.session:
        if not findings:
            reason = base.error or "MNN reports 0 bytes"
            findings.append(Finding("MNQ003", f"the float model's memory is unknown: {reason}"))
        return Result.from_findings("memory", findings, metrics)
    metrics = dataclasses.replace(metrics, memory_ratio=measured.session / base.session)
    base = float_memory[NORMAL]
    if memory_mode == NORMAL and not activations and normal.session >= _HELD * base.session and not low.error:
        note = (
            f"in memory mode 0 (normal) MNN expands the weights to float: {_megabytes(normal.session)}, float model "
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
