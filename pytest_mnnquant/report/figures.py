"""The figures of a variant that are kept: of one run in the baseline, of all runs in history."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from pytest_mnnquant.findings.check_metrics import (
    AccuracyMetrics,
    BaselineMetrics,
    CoverageMetrics,
    LatencyMetrics,
    Measured,
    MemoryMetrics,
    SizeMetrics,
)
from pytest_mnnquant.findings.figures import REAL, WHOLE, Figures
from pytest_mnnquant.findings.finding import FAILED
from pytest_mnnquant.measurements.timing import LOW
from pytest_mnnquant.report.model import ModelReport
from pytest_mnnquant.report.variant_report import VariantReport


def figures_of_models(models: tuple[ModelReport, ...]) -> Iterator[Figures]:
    """The figures of each variant of a run.

    What a check did not measure, since it did not run, is taken from the baseline check, which runs all of them.
    """
    for model in models:
        for variant in model.variants:
            figures, baseline = figures_of(model, variant), variant.metrics(BaselineMetrics)
            yield _completed(figures, baseline.measured) if baseline and baseline.measured else figures


def _completed(figures: Figures, measured: Measured) -> Figures:
    """The figures, with those that are missing as the baseline check measured them."""
    missing = [name for name in (*WHOLE, *REAL) if getattr(figures, name) is None]
    if figures.accuracy is None and measured.accuracy is not None:
        missing += ["metric", "lower_is_better"]
    return dataclasses.replace(figures, **{name: getattr(measured, name) for name in missing})


def figures_of(model: ModelReport, variant: VariantReport) -> Figures:
    """The figures of one variant of a report."""
    size, coverage = variant.metrics(SizeMetrics), variant.metrics(CoverageMetrics)
    latency = variant.metrics(LatencyMetrics) or LatencyMetrics()
    value, metric, lower = _accuracy(variant.metrics(AccuracyMetrics) or AccuracyMetrics())
    memory, float_memory = _memory(variant.metrics(MemoryMetrics))
    return Figures(
        model=model.name,
        variant=variant.label,
        source=model.source,
        size=size.quantized_bytes if size else None,
        float_size=size.float_bytes if size else None,
        coverage=coverage.coverage if coverage else None,
        accuracy=value,
        metric=metric,
        lower_is_better=lower,
        ratio=latency.latency_ratio,
        ratio_low=latency.latency_ratio_low,
        ratio_high=latency.latency_ratio_high,
        memory=memory,
        float_memory=float_memory,
        layers={layer.name: layer.storage or "missing" for layer in variant.layers},
        failed=tuple(check.check for check in variant.checks if check.outcome == FAILED),
        sha256=(variant.quantized.sha256 or "") if variant.quantized else "",
        float_sha256=(model.base.sha256 or "") if model.base else "",
        path=variant.quantized.path if variant.quantized else "",
    )


def _accuracy(accuracy: AccuracyMetrics) -> tuple[float | None, str, bool]:
    """(value, metric, whether less is better)."""
    if task := accuracy.task:
        return task.quantized, task.metric, task.lower_is_better
    return (None, "", False) if accuracy.cosine is None else (accuracy.cosine, "cosine", False)


def _memory(memory: MemoryMetrics | None) -> tuple[int | None, int | None]:
    """Bytes of the variant's session and of the float model's, in the memory mode that was requested."""
    if memory is None:
        return None, None
    if memory.memory_mode == LOW:
        return memory.session_bytes_low, memory.float_session_bytes_low
    return memory.session_bytes, memory.float_session_bytes
