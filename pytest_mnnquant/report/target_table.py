"""The host and targets side by side, with the metrics of the float model and of a variant. In JSON: `places`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.figures import variant_label
from pytest_mnnquant.findings.metric import LATENCY, MEMORY
from pytest_mnnquant.findings.run_metrics import LatencyMetrics, MemoryMetrics
from pytest_mnnquant.report.variant_report import VariantReport
from pytest_mnnquant.report.width import cut, pad, shown, width

#: The rows for the host: the float model, and the variant.
FLOAT, HOST = "float", "host"
TITLE: Final = "host and targets side by side"
#: The row of the host's real output if its kernels are known to be wrong; the row of the host is then as on ARM.
AS_RUN: Final = "host as it runs"


@dataclass(frozen=True, slots=True)
class TargetRow:
    """One variant on the host or on a target; a value is None if it was not measured.

    `metric` names the task metric, empty if no labels fit; `value` is the variant's. `cosine` is the lowest of an
    output to the float model's. `steps` is how far its outputs are from the host's, at most, in steps of their scales.
    `latency` and `memory` are ratios to the float model on the same target.
    """

    variant: str
    target: str
    metric: str
    value: float | None
    cosine: float | None
    steps: float | None = None
    latency: float | None = None
    memory: float | None = None


def target_rows(variants: Sequence[VariantReport]) -> tuple[TargetRow, ...]:
    """The rows of the variants of a model; empty if nothing ran on a target."""
    judged = [variant for variant in variants if variant.metrics(AccuracyMetrics)]
    labels = dict.fromkeys(_label(variant) for variant in judged if variant.target)
    return tuple(
        row for label in labels for row in _rows(label, [variant for variant in judged if _label(variant) == label])
    )


def _label(variant: VariantReport) -> str:
    """The variant's label without its target."""
    return variant_label(variant.recipe, variant.mode)


def _rows(label: str, variants: Sequence[VariantReport]) -> Iterator[TargetRow]:
    metrics = [variant.metrics(AccuracyMetrics) or AccuracyMetrics() for variant in variants]
    task = next((accuracy.task for accuracy in metrics if accuracy.task), None)
    metric = task.label if task else ""
    yield TargetRow(label, FLOAT, metric, task.reference if task else None, None)
    for variant, accuracy in zip(variants, metrics, strict=True):
        if accuracy.as_run:
            yield TargetRow(label, AS_RUN, metric, accuracy.as_run.task, accuracy.as_run.cosine)
        latency, memory = variant.metrics(LatencyMetrics), variant.metrics(MemoryMetrics)
        yield TargetRow(
            label,
            variant.target or HOST,
            metric,
            accuracy.task.quantized if accuracy.task else None,
            accuracy.cosine,
            accuracy.difference.steps if accuracy.difference else None,
            latency.latency_ratio if latency else None,
            memory.memory_ratio if memory else None,
        )


def target_cells(rows: Sequence[TargetRow]) -> list[tuple[str, ...]]:
    """The rows as cells, the heading first, without columns that are empty in all rows."""
    metric = next((row.metric for row in rows if row.metric), "")
    table, last = [("", "target", metric, "cosine", "from host", LATENCY.title, MEMORY.title)], ""
    for row in rows:
        name, last = "" if row.variant == last else row.variant, row.variant
        steps = "" if row.steps is None else f"{row.steps:.3g} steps"
        ratios = (_ratio(row.latency), _ratio(row.memory))
        table.append((name, row.target, _number(row.value), _number(row.cosine), steps, *ratios))
    used = [column for column in range(len(table[0])) if any(line[column] for line in table[1:])]
    return [tuple(line[column] for column in used) for line in table]


def target_lines(rows: Sequence[TargetRow], columns: int = 80) -> list[str]:
    """The rows as lines for a terminal."""
    if not rows:
        return []
    cells = [tuple(map(shown, line)) for line in target_cells(rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(pad(cell, wide) for cell, wide in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [f"  {TITLE}:", *(cut(f"    {line}", columns) for line in lines)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"
