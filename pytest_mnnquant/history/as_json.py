"""A variant's history as plain values: what `pytest-mnnquant history` prints and exports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pytest_mnnquant.findings.metric import LATENCY, METRICS
from pytest_mnnquant.history.change_points import FEWEST
from pytest_mnnquant.history.series import (
    AnyMetric,
    Commit,
    MachineChange,
    NamedStep,
    Row,
    VariantHistory,
    by_branch,
    by_machine,
    machine_for,
)

#: What is told of each run.
OF_RUN: Final = (
    *(field for metric in METRICS for field in metric.fields if field != "lower_is_better"),
    "failed",
)


def history_json(
    history: VariantHistory, metrics: Sequence[AnyMetric] = METRICS, last: int | None = None
) -> dict[str, Any]:
    """A variant's history as plain values; of its runs the last ones."""
    chosen = [row for row in history.rows if any(row.value(metric) is not None for metric in metrics)]
    return {
        "model": history.model,
        "variant": history.variant,
        "runs": [
            {
                "time": row.run.time.isoformat(),
                "commit": row.run.commit,
                "branch": row.run.branch,
                "dirty": row.run.dirty,
                "complete": row.run.complete,
                "machine": row.run.machine.machine,
                "cpu": row.run.machine.cpu,
                "flags": row.run.machine.flags,
                "mnn": row.run.machine.mnn,
                "host": str(row.run.machine),
                **{name: getattr(row.figures, name) for name in OF_RUN},
                "file": str(row.run.path),
            }
            for row in (chosen[-last:] if last else chosen)
        ],
        "branches": sorted(by_branch(history.rows)),
        "uncommitted": [metric.key for metric in metrics if _is_uncommitted(history.rows, metric)],
        "too_few": [metric.key for metric in metrics if metric.is_noisy and _is_too_short(history, metric)],
        "left_out": max(0, len(chosen) - last) if last else 0,
        "steps": [_step(one, history) for one in history.steps],
        "possible": [_step(one, history) for one in history.possible],
        "machine_changes": [_machine_change(one) for one in history.machines],
    }


def _is_too_short(history: VariantHistory, metric: AnyMetric) -> bool:
    groups = [rows for ones in by_branch(history.rows).values() for rows in by_machine(ones, metric).values()]
    return bool(groups) and max(map(len, groups)) < FEWEST


def _is_uncommitted(rows: Sequence[Row], metric: AnyMetric) -> bool:
    """Whether the figure was measured, and no run of it is evidence for a step."""
    return any(row.value(metric) is not None for row in rows) and not by_machine(rows, metric)


def _step(named: NamedStep, history: VariantHistory) -> dict[str, Any]:
    several = len(by_machine(by_branch(history.rows)[named.branch], named.metric)) > 1
    return {
        "figure": named.metric.key,
        "branch": named.branch,
        "before": named.step.before,
        "after": named.step.after,
        "change": named.step.change,
        "p": named.step.p,
        "commit": _commit(named.commit),
        "previous": _commit(named.previous),
        "earliest": _commit(named.earliest),
        "latest": _commit(named.latest),
        "host": str(named.machine) if several and machine_for(named.machine, LATENCY) == named.machine else "",
    }


def _commit(commit: Commit) -> dict[str, Any]:
    return {"name": commit.name, "dirty": commit.dirty, "time": commit.time.isoformat(), "runs": len(commit.values)}


def _machine_change(change: MachineChange) -> dict[str, Any]:
    return {
        "figure": change.metric.key,
        "branch": change.branch,
        "before": change.level_before,
        "after": change.level_after,
        "from": str(change.before),
        "to": str(change.after),
        "time": change.time.isoformat(),
    }
