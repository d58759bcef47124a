"""The shown part of a variant's history: its last runs, and the metrics that allow no conclusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_mnnquant.findings.metric import LATENCY, METRICS
from pytest_mnnquant.history.change_points import FEWEST
from pytest_mnnquant.history.series import (
    AnyMetric,
    NamedStep,
    Row,
    VariantHistory,
    by_branch,
    by_machine,
    machine_for,
)


@dataclass(frozen=True)
class HistoryView:
    """The history of one variant in these metrics; `last` is how many of its runs are listed, None for all."""

    history: VariantHistory
    metrics: Sequence[AnyMetric] = METRICS
    last: int | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """The runs to list: the last ones that measured one of the metrics."""
        return self._measured[-self.last :] if self.last else self._measured

    @property
    def left_out(self) -> int:
        """The number of earlier runs that are not listed."""
        return len(self._measured) - len(self.rows)

    @property
    def _measured(self) -> tuple[Row, ...]:
        rows = self.history.rows
        return tuple(row for row in rows if any(row.value(metric) is not None for metric in self.metrics))

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches of all runs, sorted."""
        return tuple(sorted(by_branch(self.history.rows)))

    @property
    def uncommitted(self) -> tuple[AnyMetric, ...]:
        """The metrics that were measured only in runs with uncommitted changes, which show no steps."""
        return tuple(metric for metric in self.metrics if self._is_uncommitted(metric))

    def _is_uncommitted(self, metric: AnyMetric) -> bool:
        rows = self.history.rows
        return any(row.value(metric) is not None for row in rows) and not by_machine(rows, metric)

    @property
    def too_few(self) -> tuple[AnyMetric, ...]:
        """The noisy metrics without enough runs on any branch and machine to find a step."""
        return tuple(metric for metric in self.metrics if metric.is_noisy and self._is_too_short(metric))

    def _is_too_short(self, metric: AnyMetric) -> bool:
        branches = by_branch(self.history.rows).values()
        groups = [rows for of_branch in branches for rows in by_machine(of_branch, metric).values()]
        return bool(groups) and max(map(len, groups)) < FEWEST

    def host_of(self, step: NamedStep) -> str:
        """The machine of a step, if the history has several and the metric depends on the machine; else empty."""
        machines = by_machine(by_branch(self.history.rows)[step.branch], step.metric)
        depends = machine_for(step.machine, LATENCY) == step.machine
        return str(step.machine) if len(machines) > 1 and depends else ""
