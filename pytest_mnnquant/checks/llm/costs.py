"""Latency and memory of an export: tokens per second, and resident memory in both memory modes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from pytest_mnnquant.checks.llm.running import CostEvidence
from pytest_mnnquant.checks.llm.speed import judge_speeds, with_speeds
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.run_metrics import LatencyMetrics, MemoryMetrics, TimingConditions
from pytest_mnnquant.measurements.language_model import Generation, PairedSpeeds
from pytest_mnnquant.measurements.timing import LOW, NORMAL


def check_latency(
    evidence: CostEvidence,
    speeds: PairedSpeeds | None = None,
    max_latency_ratio: float | Mapping[str, float] | None = None,
) -> Result:
    """Record how fast a prompt is read and how fast tokens are generated, as medians of the runs.

    `speeds` are the times beside a reference export, which the limit is for.
    """
    generation = evidence.low if evidence.is_low else evidence.normal
    prefill = statistics.median(speed.prefill for speed in generation.speeds)
    decode = statistics.median(speed.decode for speed in generation.speeds)
    if not decode > 0:
        finding = Finding("MNQ003", "generation ended before it could be timed", fix="run the check again")
        return Result.from_findings("latency", [finding])
    settings = TimingConditions(evidence.threads, "low", LOW if evidence.is_low else NORMAL, 1)
    metrics = LatencyMetrics(settings=settings, prompt_tokens_per_second=prefill, tokens_per_second=decode)
    if speeds is None:
        return Result.from_findings("latency", [], metrics)
    return Result.from_findings("latency", [*judge_speeds(speeds, max_latency_ratio)], with_speeds(metrics, speeds))


def check_memory(evidence: CostEvidence) -> Result:
    """Record by how much loading and running the export makes its process grow, in memory modes normal and low."""
    low, normal = evidence.low, evidence.normal
    mode = LOW if evidence.is_low else NORMAL
    metrics = MemoryMetrics(mode, *_bytes(normal), *_bytes(low), None, None, None, None, note=_note(low, normal))
    if normal.loaded_bytes is None:
        finding = Finding("MNQ003", "this system does not report the memory of a process")
        return Result.from_findings("memory", [finding], metrics)
    return Result.from_findings("memory", [], metrics)


def _bytes(generation: Generation) -> tuple[int | None, int | None]:
    return generation.loaded_bytes, generation.peak_bytes


def _note(low: Generation, normal: Generation) -> str | None:
    if low.peak_bytes is None or normal.peak_bytes is None or normal.peak_bytes < 1.3 * low.peak_bytes:
        return None
    sizes = [f"{count / 1e6:,.1f} MB" for count in (normal.peak_bytes, low.peak_bytes)]
    return f"in memory mode normal MNN expands the weights to float: {sizes[0]}, in mode low {sizes[1]}"
