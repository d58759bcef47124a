"""The output of `pytest-mnnquant history`: a table of runs, a sentence per step, and plots of metrics over runs."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from statistics import median
from typing import Final

from pytest_mnnquant.history.series import AnyMetric, Commit, MachineChange, NamedStep, Row
from pytest_mnnquant.history.storage import Run
from pytest_mnnquant.history.view import HistoryView

_WIDTH: Final = 80
_HEIGHT: Final = 9
_LABEL: Final = 11
_SHORT: Final = 8
_MARKS: Final = "o+x*#"


def history_text(view: HistoryView) -> str:
    """A variant's runs, one per line, and its steps."""
    hosts = _hosts(view.rows)
    lines = [_title(view)]
    lines += [f"  {_letter(hosts, host)}: {host}" for host in hosts]
    if view.left_out:
        lines.append(f"  ({view.left_out:,} earlier runs are not listed)")
    heads = "".join(f"{metric.key:>{metric.width}}" for metric in view.metrics)
    lines.append(f"  {'time (UTC)':<16}  {'commit':<9}{heads}")
    lines += [_run_line(row, view, hosts) for row in view.rows]
    return "\n".join([*lines, *event_lines(view)])


def _run_line(row: Row, view: HistoryView, hosts: Sequence[str]) -> str:
    run, failed = row.run, row.figures.failed
    cells = "".join(f"{metric.written(row.value(metric)):>{metric.width}}" for metric in view.metrics)
    notes = [f"on {_letter(hosts, str(run.machine))}"] if len(hosts) > 1 else []
    notes += [_branch(run.branch)] if len(view.branches) > 1 else []
    notes += [] if run.complete else ["unfinished"]
    notes += ["failed: " + ", ".join(failed)] if failed else []
    note = "  " + "; ".join(notes) if notes else ""
    return f"  {_minute(run.time)}  {_short(run.commit, run.dirty):<9}{cells}{note}"


def _title(view: HistoryView) -> str:
    return f"{view.history.model} {view.history.variant}"


def _hosts(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(row.run.machine) for row in rows))


def _letter(hosts: Sequence[str], host: str) -> str:
    place = hosts.index(host)
    return chr(ord("A") + place) if place < 26 else str(place)


def _branch(name: str) -> str:
    return f"branch {name}" if name else "no branch"


def event_lines(view: HistoryView) -> list[str]:
    """Steps, unconfirmed changes, and changes of machine: one sentence each."""

    def where(branch: str) -> str:
        return f" ({_branch(branch)})" if len(view.branches) > 1 else ""

    history = view.history
    sentences = [_step_text(step, view) + where(step.branch) for step in history.steps]
    unconfirmed = "possible step, too few commits to confirm it: "
    sentences += [unconfirmed + _step_text(step, view) + where(step.branch) for step in history.possible]
    sentences += [_machine_text(change) + where(change.branch) for change in history.machines]
    sentences = sentences or ["no steps"]
    if view.uncommitted:
        keys = ", ".join(metric.key for metric in view.uncommitted)
        sentences.append(f"{keys}: no search for steps, because every run had uncommitted changes")
    too_few = "too few runs on one machine and branch to distinguish a step from noise"
    sentences += [f"{metric.key}: {too_few}" for metric in view.too_few]
    return [line for text in sentences for line in textwrap.wrap(
        text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )]  # fmt: skip


def _machine_text(change: MachineChange) -> str:
    before, after = (change.metric.written(level) for level in (change.level_before, change.level_after))
    return (
        f"machine changed on {_day(change.time)} ({change.before} -> {change.after}): {change.metric.key} {before} -> "
        f"{after}; not attributed to a commit"
    )


def _step_text(named: NamedStep, view: HistoryView) -> str:
    metric, step = named.metric, named.step
    size = f"{step.change:+.1%}" if abs(step.change) < 100 else "from 0"
    text = f"{metric.key} {metric.written(step.before)} -> {metric.written(step.after)} ({size}) since "
    text += _commit_text(named.commit)
    if step.p is not None:
        text += f", p = {step.p:.1g}" if step.p >= 1e-4 else ", p < 0.0001"
    text += f"; {_commit_text(named.previous)} still had the old level"
    if named.earliest != named.latest:
        first, last = _commit_text(named.earliest, False), _commit_text(named.latest, False)
        text += f"; any commit from {first} to {last} may be the cause"
    host = view.host_of(named)
    return text + (f" (on {host})" if host else "")


def _commit_text(commit: Commit, dated: bool = True) -> str:
    if not commit.name:
        return f"the run of {_minute(commit.time)}"
    changes = " with uncommitted changes" if commit.dirty else ""
    date = f" ({_day(commit.time)})" if dated else ""
    return f"commit {_short(commit.name.rstrip('+'), False)}{changes}{date}"


def plot_text(view: HistoryView) -> str:
    """A plot for each metric that changed, a line for each one that did not, and the steps."""
    lines = [_title(view)]
    for metric in view.metrics:
        rows = [row for row in view.rows if row.value(metric) is not None]
        values = [float(row.value(metric) or 0) for row in rows]
        if not rows:
            continue
        if min(values) == max(values):
            lines.append(f"  {metric.key}: {metric.written(values[0])} in {len(values)} run{'s' * (len(values) > 1)}")
            continue
        steps = (step.commit for step in view.history.steps if step.metric is metric)
        marked = {commit.name or commit.time.isoformat() for commit in steps}
        first, last = rows[0].run.time, rows[-1].run.time
        lines += ["", f"  {metric.key}, {len(values)} runs from {_day(first)} to {_day(last)}"]
        lines += _plot(metric, rows, values, marked)
    return "\n".join([*lines, "", *event_lines(view)])


def _plot(metric: AnyMetric, runs: Sequence[Row], values: Sequence[float], marked: set[str]) -> Iterator[str]:
    """Dots, one column per run; if there are more runs than columns, each dot is the median of several runs."""
    low, high = min(values), max(values)
    hosts = _hosts(runs)
    columns = min(len(values), _WIDTH - _LABEL - 3)
    edges = [place * len(values) // columns for place in range(columns + 1)]
    rows = [[" "] * columns for _ in range(_HEIGHT)]
    under = [" "] * columns
    shown: set[str] = set()
    for column, (start, end) in enumerate(itertools.pairwise(edges)):
        place = round((median(values[start:end]) - low) / (high - low) * (_HEIGHT - 1))
        rows[_HEIGHT - 1 - place][column] = _MARKS[hosts.index(str(runs[start].run.machine)) % len(_MARKS)]
        new = {_name(row.run) for row in runs[start:end]} & marked - shown
        shown |= new
        under[column] = "^" if new else " "
    for number, row in enumerate(rows):
        value = high - (high - low) * number / (_HEIGHT - 1)
        label = metric.written(value) if number % 4 == 0 else ""
        yield f"{label:>{_LABEL}} |{''.join(row)}".rstrip()
    yield " " * _LABEL + " +" + "-" * columns
    if shown:
        yield " " * (_LABEL + 2) + "".join(under).rstrip()
    if len(hosts) > 1:
        yield from (f"  {_MARKS[place % len(_MARKS)]}: {host}" for place, host in enumerate(hosts))


def _name(run: Run) -> str:
    """The name of a run's commit in the texts of steps."""
    return run.commit + "+" * run.dirty if run.commit else run.time.isoformat()


def _short(commit: str, dirty: bool) -> str:
    return (commit[:_SHORT] or "none") + "+" * dirty


def _minute(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def _day(time: datetime) -> str:
    return time.strftime("%Y-%m-%d")
