"""A variant's history as plain values, for the output and the exports of `pytest-mnnquant history`."""

from __future__ import annotations

from typing import Any, Final

from pytest_mnnquant.findings.metric import METRICS
from pytest_mnnquant.history.series import Commit, MachineChange, NamedStep, Row
from pytest_mnnquant.history.view import HistoryView

#: The fields of a variant in a run that are printed and exported.
OF_RUN: Final = (
    *(field for metric in METRICS for field in metric.fields if field != "lower_is_better"),
    "failed",
)


def history_json(view: HistoryView) -> dict[str, Any]:
    """A variant's history as plain values."""
    history = view.history
    return {
        "model": history.model,
        "variant": history.variant,
        "runs": [_run(row) for row in view.rows],
        "branches": list(view.branches),
        "uncommitted": [metric.key for metric in view.uncommitted],
        "too_few": [metric.key for metric in view.too_few],
        "left_out": view.left_out,
        "steps": [_step(step, view) for step in history.steps],
        "possible": [_step(step, view) for step in history.possible],
        "machine_changes": [_machine_change(change) for change in history.machines],
    }


def _run(row: Row) -> dict[str, Any]:
    run = row.run
    return {
        "time": run.time.isoformat(),
        "commit": run.commit,
        "branch": run.branch,
        "dirty": run.dirty,
        "complete": run.complete,
        "machine": run.machine.machine,
        "cpu": run.machine.cpu,
        "flags": run.machine.flags,
        "mnn": run.machine.mnn,
        "host": str(run.machine),
        **{name: getattr(row.figures, name) for name in OF_RUN},
        "file": str(run.path),
    }


def _step(named: NamedStep, view: HistoryView) -> dict[str, Any]:
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
        "host": view.host_of(named),
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
