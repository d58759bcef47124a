"""Results and metrics of checks, for tests that need some."""

from __future__ import annotations

from typing import TypeVar

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics, OutputMetrics, TaskMetrics
from pytest_mnnquant.findings.check_metrics import M, metrics_of
from pytest_mnnquant.findings.file_metrics import CoverageMetrics, SizeMetrics
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.findings.run_metrics import LatencyMetrics, MemoryMetrics

T = TypeVar("T")


def measured(kind: type[M], result: Result) -> M:
    """The metrics of a result, which are of this kind."""
    metrics = metrics_of(kind, [result])
    assert metrics is not None
    return metrics


def known(value: T | None) -> T:
    """A value that was measured."""
    assert value is not None
    return value


def size(ratio: float) -> SizeMetrics:
    return SizeMetrics(round(1000 * ratio), 1000, ratio, 1000)


def coverage(share: float) -> CoverageMetrics:
    return CoverageMetrics(share, layers=2, quantized_layers=1, skipped_layers=0)


def task(label: str, before: float, after: float) -> TaskMetrics:
    drop = before - after
    name = label.replace("-", "").replace(" ", "_").lower()
    return TaskMetrics(name, label, before, after, drop, drop, drop, lower_is_better=False)


def output(cosine: float | None) -> OutputMetrics:
    return OutputMetrics(20.0, 20.0, cosine, 0.1, 0.1, 0.1, None, None, None)


def accuracy(of_task: TaskMetrics | None = None, **cosines: float | None) -> AccuracyMetrics:
    """Of outputs with these names and cosines."""
    return AccuracyMetrics(100, {name: output(cosine) for name, cosine in cosines.items()}, of_task)


def latency(ratio: float) -> LatencyMetrics:
    return LatencyMetrics(ratio, ratio, ratio, pairs=100)


def memory(ratio: float) -> MemoryMetrics:
    return MemoryMetrics(0, 10, None, 10, None, 10, None, 10, None, memory_ratio=ratio)
