"""The metrics of a variant that are shown side by side, accepted in a baseline and followed over time.

Each is registered here once: tables, charts, the baseline and the history follow from its entry.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import M, Metrics
from pytest_mnnquant.findings.figures import Figures, size_text
from pytest_mnnquant.findings.file_metrics import CoverageMetrics, SizeMetrics
from pytest_mnnquant.findings.run_metrics import LatencyMetrics, MemoryMetrics


class Varies(enum.Enum):
    """What a metric of the same model depends on."""

    FILES = "the files alone"
    KERNELS = "the processor's kernels"
    MACHINE = "the machine, and how it runs the model"


class Worse(enum.Enum):
    """Which direction is worse."""

    HIGHER = "higher"
    LOWER = "lower"
    BY_TASK = "as the task metric says: `Figures.lower_is_better`"


@dataclass(frozen=True, slots=True)
class Shown:
    """One metric of one variant, relative to the float model: a table cell's text, and its number for sorting."""

    text: str = "-"
    number: float | None = None


#: A metric that was not measured.
NOT_SHOWN: Final = Shown()


@dataclass(frozen=True)
class Metric(Generic[M]):
    """One metric.

    `key` names it in the baseline, in the history and in `--figure`. The key and all `fields` of the metric are fields
    of `Figures`. `title` is the heading of its column, `short_title` that of a column without units. `check` measures
    it, as `kind`. `shown` makes its cell in tables of reports. `keep` puts it into `Figures`. `axis` is its label in
    charts; `text` formats a value from the history, in a column of `width` characters. `is_noisy`: it varies between
    runs of the same model on the same machine.
    """

    key: str
    title: str
    check: str
    kind: type[M]
    fields: tuple[str, ...]
    shown: Callable[[M], Shown]
    keep: Callable[[M, Figures], Figures]
    worse: Worse
    varies: Varies
    unit: str
    axis: str
    text: Callable[[float], str]
    width: int
    short_title: str = ""
    is_noisy: bool = False

    def cell(self, measured: Iterable[Metrics]) -> Shown:
        """The cell of a variant whose checks measured this."""
        return next((self.shown(metrics) for metrics in measured if isinstance(metrics, self.kind)), NOT_SHOWN)

    def written(self, value: float | None) -> str:
        """A value from the history as people read it; - if it was not measured."""
        return "-" if value is None else self.text(value)

    def value(self, figures: Figures) -> float | None:
        """The value in a variant's figures, in this metric's unit; None if it was not measured."""
        value: float | None = getattr(figures, self.key)
        return value

    def copied(self, source: Figures, target: Figures) -> Figures:
        """`target` with this metric of `source`."""
        return dataclasses.replace(target, **{field: getattr(source, field) for field in self.fields})


def with_measured(figures: Figures, measured: Iterable[Metrics]) -> Figures:
    """The figures, with all metrics that the checks of this variant measured."""
    for metrics in measured:
        for metric in METRICS:
            if isinstance(metrics, metric.kind):
                figures = metric.keep(metrics, figures)
    return figures


def _keep_size(metrics: SizeMetrics, figures: Figures) -> Figures:
    return dataclasses.replace(figures, size=metrics.quantized_bytes, float_size=metrics.float_bytes)


def _keep_coverage(metrics: CoverageMetrics, figures: Figures) -> Figures:
    return dataclasses.replace(figures, coverage=metrics.coverage)


def _show_accuracy(metrics: AccuracyMetrics) -> Shown:
    if (language := metrics.language) is not None:
        return Shown(f"KL {language.kl:.2g}", -language.kl)
    if (task := metrics.task) is not None:
        change = task.quantized - task.reference
        return Shown(f"{task.label} {change:+.4f}" if change else f"{task.label} +-0", change)
    cosine = metrics.cosine
    return NOT_SHOWN if cosine is None else Shown(f"cosine {cosine:.4f}", cosine - 1)


def _keep_accuracy(metrics: AccuracyMetrics, figures: Figures) -> Figures:
    if (language := metrics.language) is not None:
        return dataclasses.replace(figures, accuracy=language.kl, metric="kl", lower_is_better=True)
    if (task := metrics.task) is not None:
        return dataclasses.replace(
            figures, accuracy=task.quantized, metric=task.metric, lower_is_better=task.lower_is_better
        )
    if (cosine := metrics.cosine) is not None:
        return dataclasses.replace(figures, accuracy=cosine, metric="cosine", lower_is_better=False)
    return figures


def _keep_latency(metrics: LatencyMetrics, figures: Figures) -> Figures:
    return dataclasses.replace(
        figures,
        ratio=metrics.latency_ratio,
        ratio_low=metrics.latency_ratio_low,
        ratio_high=metrics.latency_ratio_high,
    )


def _keep_memory(metrics: MemoryMetrics, figures: Figures) -> Figures:
    return dataclasses.replace(figures, memory=metrics.session, float_memory=metrics.float_session)


def _times_float(ratio: float | None) -> Shown:
    return NOT_SHOWN if ratio is None else Shown(f"{ratio:.2f}x float", ratio)


def _show_latency(metrics: LatencyMetrics) -> Shown:
    """The ratio to the float model; an export of a language model has none, but tokens per second."""
    speed = metrics.tokens_per_second
    return _times_float(metrics.latency_ratio) if speed is None else Shown(f"{speed:,.0f} tokens/s", -speed)


def _show_memory(metrics: MemoryMetrics) -> Shown:
    """The ratio to the float model, or the bytes if none ran."""
    if metrics.memory_ratio is not None or metrics.session is None:
        return _times_float(metrics.memory_ratio)
    return Shown(f"{metrics.session / 1e6:,.1f} MB", float(metrics.session))


SIZE: Final = Metric(
    key="size",
    title="size",
    short_title="smaller",
    check="size",
    kind=SizeMetrics,
    fields=("size", "float_size"),
    shown=lambda metrics: Shown(size_text(metrics.size_ratio), metrics.size_ratio),
    keep=_keep_size,
    worse=Worse.HIGHER,
    varies=Varies.FILES,
    unit="bytes",
    axis="file size, bytes",
    text=lambda value: f"{value:,.0f}",
    width=12,
)
COVERAGE: Final = Metric(
    key="coverage",
    title="coverage",
    check="coverage",
    kind=CoverageMetrics,
    fields=("coverage",),
    shown=lambda metrics: Shown(f"{metrics.coverage:.1%}", metrics.coverage),
    keep=_keep_coverage,
    worse=Worse.LOWER,
    varies=Varies.FILES,
    unit="share of weight bytes",
    axis="coverage",
    text=lambda value: f"{value:.1%}",
    width=10,
)
ACCURACY: Final = Metric(
    key="accuracy",
    title="accuracy",
    check="accuracy",
    kind=AccuracyMetrics,
    fields=("accuracy", "metric", "lower_is_better"),
    shown=_show_accuracy,
    keep=_keep_accuracy,
    worse=Worse.BY_TASK,
    varies=Varies.KERNELS,
    unit="that of the task metric",
    axis="accuracy",
    text=lambda value: f"{value:.4f}",
    width=10,
)
LATENCY: Final = Metric(
    key="ratio",
    title="latency",
    check="latency",
    kind=LatencyMetrics,
    fields=("ratio", "ratio_low", "ratio_high"),
    shown=_show_latency,
    keep=_keep_latency,
    worse=Worse.HIGHER,
    varies=Varies.MACHINE,
    unit="times the latency of the float model, or of the reference export",
    axis="latency / float",
    text=lambda value: f"{value:.3f}",
    width=8,
    is_noisy=True,
)
MEMORY: Final = Metric(
    key="memory",
    title="memory",
    check="memory",
    kind=MemoryMetrics,
    fields=("memory", "float_memory"),
    shown=_show_memory,
    keep=_keep_memory,
    worse=Worse.HIGHER,
    varies=Varies.MACHINE,
    unit="bytes",
    axis="memory, bytes",
    text=lambda value: f"{value / 1e6:.2f} MB",
    width=11,
)

#: All metrics, in the order in which they are shown.
METRICS: Final[tuple[Metric[Any], ...]] = (SIZE, COVERAGE, ACCURACY, LATENCY, MEMORY)

#: Their keys, in the same order.
KEYS: Final = tuple(metric.key for metric in METRICS)
#: The metrics by their keys.
BY_KEY: Final = dict(zip(KEYS, METRICS, strict=True))
