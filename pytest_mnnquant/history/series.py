"""From runs to series: one figure of one variant over the commits of a branch, its steps by name, new machines."""

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
#: Runs on either side of a change of machine that tell the levels.
_NEAR: Final = 10


@dataclass(frozen=True)
class Row:
    """One variant in one run."""

    run: Run
    figures: Figures

    def value(self, metric: AnyMetric) -> float | None:
        """The value, in the metric's unit; None where it was not measured."""
        return metric.value(self.figures)


@dataclass(frozen=True)
class Commit:
    """The runs of one commit that measured a figure; those with uncommitted changes are apart from those without.

    `name` is the commit, with a + where there were uncommitted changes; empty where there was no repository.
    """

    name: str
    time: datetime
    dirty: bool
    values: tuple[float, ...]


@dataclass(frozen=True)
class NamedStep:
    """A step, with the commit at which the new level begins, and the one that was measured before it."""

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
    """Runs that came from another machine for the first time, and gave another level: no commit is blamed."""

    metric: AnyMetric
    branch: str
    before: Machine
    after: Machine
    time: datetime
    level_before: float
    level_after: float


@dataclass(frozen=True)
class VariantHistory:
    """All runs of one variant, in the order of time, and what happened to its figures."""

    model: str
    variant: str
    rows: tuple[Row, ...]
    steps: tuple[NamedStep, ...]
    possible: tuple[NamedStep, ...]
    machines: tuple[MachineChange, ...]


def histories(
    runs: Sequence[Run], model: str = "*", variant: str = "*", metrics: Sequence[AnyMetric] = METRICS, branch: str = "*"
) -> tuple[VariantHistory, ...]:
    """The history of each variant, of the runs whose names fit these globs; names themselves fit too (`int8[eval]`)."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for run in (run for run in runs if _fits(run.branch, branch)):
        for row in run.figures:
            if _fits(row.model, model) and _fits(row.variant, variant):
                rows.setdefault((row.model, row.variant), []).append(Row(run, row))
    return tuple(_history(*names, tuple(found), metrics) for names, found in sorted(rows.items()))


def past_runs(folder: Path | None, variants: Container[tuple[str, str]]) -> tuple[VariantHistory, ...]:
    """The history of these variants (model, variant) in a storage; empty if there is no storage."""
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
            if found.possible and commits[-1].time == newest:  # Else it is an old machine's last word.
                possible.append(_named(metric, branch, machine, found.possible, commits))
        changes += list(_machine_changes(groups, metric, branch))
    return VariantHistory(model, variant, rows, tuple(steps), tuple(possible), tuple(changes))


def by_branch(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows by branch: what differs between two branches that take turns, no commit of either has moved."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.run.branch, []).append(row)
    return groups


def machine_for(machine: Machine, metric: AnyMetric) -> Machine:
    """What of the machine a figure depends on."""
    return Machine(mnn=machine.mnn) if metric.varies is Varies.FILES else machine


def by_machine(rows: Sequence[Row], metric: AnyMetric) -> dict[Machine, list[Row]]:
    """The rows that have the figure, by the machine that they come from, in the order of its first row.

    Of accuracies, those in the metric of the last row: top-1 and a cosine are no series. Runs with uncommitted changes
    are none of a figure that needs no second commit to confirm its steps: they would blame the commits beside them.
    """
    groups: dict[Machine, list[Row]] = {}
    measured = [row for row in rows if row.value(metric) is not None and (metric.is_noisy or not row.run.dirty)]
    for row in measured:
        if metric is not ACCURACY or row.figures.metric == measured[-1].figures.metric:
            groups.setdefault(machine_for(row.run.machine, metric), []).append(row)
    return groups


def commits_of(rows: Sequence[Row], metric: AnyMetric) -> list[Commit]:
    """The rows by commit, in the order of the commits' own times: an old commit measured again goes to its place.

    Where a commit's time is not known, its first run's stands for it, as it does for uncommitted changes. A run without
    a repository is a commit of its own.
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
    """For each machine but the first: whether its level is another than that of the machine that ran before it."""
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
