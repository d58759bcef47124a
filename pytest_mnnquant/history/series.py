"""From runs to series: one metric of one variant over the commits of a branch, its steps, and changes of machine."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import Any, Final

from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.metric import ACCURACY, METRICS, Metric, Varies
from pytest_mnnquant.history.change_points import EFFECT, EXACT_EFFECT, Found, Step, exact_steps, noisy_steps
from pytest_mnnquant.history.storage import Machine, Run, read_runs

AnyMetric = Metric[Any]
#: The number of runs before and after a change of machine that give the levels.
_NEAR: Final = 10


@dataclass(frozen=True)
class Row:
    """One variant in one run."""

    run: Run
    figures: Figures

    def value(self, metric: AnyMetric) -> float | None:
        """The value, in the metric's unit; None if not measured."""
        return metric.value(self.figures)


@dataclass(frozen=True)
class Commit:
    """The runs of one commit that measured a metric; runs with uncommitted changes are separate.

    `name` is the commit, with a + for uncommitted changes; empty without a repository.
    """

    name: str
    time: datetime
    dirty: bool
    values: tuple[float, ...]


@dataclass(frozen=True)
class NamedStep:
    """A step, with the commit at which the new level begins, and the last measured commit before it."""

    metric: AnyMetric
    branch: str
    machine: Machine
    step: Step
    commit: Commit
    previous: Commit
    earliest: Commit
    latest: Commit


@dataclass(frozen=True)
class MachineChange:
    """The first runs on another machine that gave another level; this names no commit."""

    metric: AnyMetric
    branch: str
    before: Machine
    after: Machine
    time: datetime
    level_before: float
    level_after: float


@dataclass(frozen=True)
class VariantHistory:
    """All runs of one variant, in the order of time, with the steps and the changes of machine in its metrics."""

    model: str
    variant: str
    rows: tuple[Row, ...]
    steps: tuple[NamedStep, ...]
    possible: tuple[NamedStep, ...]
    machines: tuple[MachineChange, ...]


def histories(
    runs: Sequence[Run], model: str = "*", variant: str = "*", metrics: Sequence[AnyMetric] = METRICS, branch: str = "*"
) -> tuple[VariantHistory, ...]:
    """The history of each variant, of the runs that match these globs; plain names match too (`int8-eval`)."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for run in (run for run in runs if _fits(run.branch, branch)):
        for row in run.figures:
            if _fits(row.model, model) and _fits(row.variant, variant):
                rows.setdefault((row.model, row.variant), []).append(Row(run, row))
    return tuple(_history(*names, tuple(found), metrics) for names, found in sorted(rows.items()))


def past_runs(folder: Path | None, variants: Container[tuple[str, str]]) -> tuple[VariantHistory, ...]:
    """The history of these variants (model, variant) in a storage; empty without a storage."""
    if folder is None or not folder.is_dir():
        return ()
    return tuple(known for known in histories(read_runs(folder)) if (known.model, known.variant) in variants)


def _fits(name: str, glob: str) -> bool:
    return name == glob or fnmatchcase(name, glob)


def _history(model: str, variant: str, rows: tuple[Row, ...], metrics: Sequence[AnyMetric]) -> VariantHistory:
    steps, possible, changes = [], [], []
    for metric, (branch, ones) in itertools.product(metrics, by_branch(rows).items()):
        groups = by_machine(ones, metric)
        series = {machine: commits_of(group, metric) for machine, group in groups.items()}
        newest = max((commits[-1].time for commits in series.values()), default=None)
        for machine, commits in series.items():
            found = _found(commits, metric)
            steps += [_named(metric, branch, machine, step, commits) for step in found.steps]
            if found.possible and commits[-1].time == newest:  # Otherwise these are the last runs of an old machine.
                possible.append(_named(metric, branch, machine, found.possible, commits))
        changes += list(_machine_changes(groups, metric, branch))
    return VariantHistory(model, variant, rows, tuple(steps), tuple(possible), tuple(changes))


def by_branch(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows by branch: no commit caused the difference between two branches that alternate."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.run.branch, []).append(row)
    return groups


def machine_for(machine: Machine, metric: AnyMetric) -> Machine:
    """The part of the machine that a metric depends on."""
    return Machine(mnn=machine.mnn) if metric.varies is Varies.FILES else machine


def by_machine(rows: Sequence[Row], metric: AnyMetric) -> dict[Machine, list[Row]]:
    """The rows with the metric, by machine, in the order of each machine's first row.

    For accuracy, only those with the task metric of the last row: top-1 and cosine do not form a series. Runs with
    uncommitted changes are left out for metrics whose steps need no second commit, since they would name a wrong
    commit.
    """
    groups: dict[Machine, list[Row]] = {}
    measured = [row for row in rows if row.value(metric) is not None and (metric.is_noisy or not row.run.dirty)]
    for row in measured:
        if metric is not ACCURACY or row.figures.metric == measured[-1].figures.metric:
            groups.setdefault(machine_for(row.run.machine, metric), []).append(row)
    return groups


def commits_of(rows: Sequence[Row], metric: AnyMetric) -> list[Commit]:
    """The rows by commit, in the order of the commits' own times, so that an old commit measured again is sorted in.

    If a commit's time is unknown, or for uncommitted changes, the time of its first run is used. A run without a
    repository counts as one commit.
    """
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        run = row.run
        groups.setdefault((run.commit or run.path.name, run.dirty), []).append(row)
    commits = []
    for ones in groups.values():
        run = ones[0].run
        name = run.commit + "+" * run.dirty if run.commit else ""
        time = run.time if run.dirty or run.commit_time is None else run.commit_time
        values = tuple(value for row in ones if (value := row.value(metric)) is not None)
        commits.append(Commit(name, time, run.dirty, values))
    return sorted(commits, key=lambda commit: commit.time)


def _found(commits: Sequence[Commit], metric: AnyMetric) -> Found:
    if not metric.is_noisy:
        return exact_steps([commit.values for commit in commits])
    measured = [(place, [value for value in commit.values if value > 0]) for place, commit in enumerate(commits)]
    measured = [(place, values) for place, values in measured if values]
    steps = noisy_steps([values for _, values in measured])

    def placed(step: Step) -> Step:
        index, earliest, latest = (measured[place][0] for place in (step.index, step.earliest, step.latest))
        return Step(index, step.before, step.after, step.p, earliest, latest)

    return Found(tuple(map(placed, steps.steps)), None if steps.possible is None else placed(steps.possible))


def _named(metric: AnyMetric, branch: str, machine: Machine, step: Step, commits: Sequence[Commit]) -> NamedStep:
    places = (step.index, step.index - 1, step.earliest, step.latest)
    return NamedStep(metric, branch, machine, step, *(commits[place] for place in places))


def _machine_changes(groups: dict[Machine, list[Row]], metric: AnyMetric, branch: str) -> Iterator[MachineChange]:
    """The changes of level between each machine and the one that ran before it."""
    effect = EFFECT if metric.is_noisy else EXACT_EFFECT
    seen = list(groups.items())
    for place, (machine, rows) in enumerate(seen[1:], start=1):
        begins = rows[0].run.time
        earlier = [(row.run.time, other, row) for other, ones in seen[:place] for row in ones if row.run.time <= begins]
        before = max(earlier, key=lambda one: one[0])[1]
        old = _level([row for _, other, row in earlier if other == before][-_NEAR:], metric)
        new = _level(rows[:_NEAR], metric)
        if abs(new - old) > effect * max(abs(old), abs(new)):
            yield MachineChange(metric, branch, before, machine, begins, old, new)


def _level(rows: Sequence[Row], metric: AnyMetric) -> float:
    return median(value for row in rows if (value := row.value(metric)) is not None)
