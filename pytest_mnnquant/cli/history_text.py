"""What `pytest-mnnquant history` prints: runs in a table, steps in sentences, figures over runs as a plot of text."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any, Final

from pytest_mnnquant.findings.metric import BY_KEY
from pytest_mnnquant.history.series import AnyMetric

_WIDTH: Final = 80
_HEIGHT: Final = 9
_LABEL: Final = 11
_SHORT: Final = 8
_MARKS: Final = "o+x*#"


def history_text(history: Mapping[str, Any], metrics: Sequence[AnyMetric]) -> str:
    """A variant's runs, one a line, and its steps beneath."""
    runs = history["runs"]
    hosts = list(dict.fromkeys(run["host"] for run in runs))
    lines = [f"{history['model']} {history['variant']}"]
    lines += [f"  {_letter(hosts, host)}: {host}" for host in hosts]
    if history["left_out"]:
        lines.append(f"  ({history['left_out']:,} earlier runs are not listed)")
    head = f"  {'time (UTC)':<16}  {'commit':<9}" + "".join(f"{metric.key:>{metric.width}}" for metric in metrics)
    lines.append(head)
    for run in runs:
        cells = "".join(f"{metric.written(run[metric.key]):>{metric.width}}" for metric in metrics)
        notes = [f"on {_letter(hosts, run['host'])}"] if len(hosts) > 1 else []
        notes += [_branch(run["branch"])] if len(history["branches"]) > 1 else []
        notes += [] if run["complete"] else ["unfinished"]
        notes += ["failed: " + ", ".join(run["failed"])] if run["failed"] else []
        note = "  " + "; ".join(notes) if notes else ""
        lines.append(f"  {_minute(run['time'])}  {_short(run['commit'], run['dirty']):<9}{cells}{note}")
    return "\n".join([*lines, *event_lines(history)])


def _letter(hosts: Sequence[str], host: str) -> str:
    place = hosts.index(host)
    return chr(ord("A") + place) if place < 26 else str(place)


def _branch(name: str) -> str:
    return f"branch {name}" if name else "no branch"


def event_lines(history: Mapping[str, Any]) -> list[str]:
    """Steps, changes that are not confirmed, and changes of machine: a sentence each."""

    def where(event: Mapping[str, Any]) -> str:
        return f" ({_branch(event['branch'])})" if len(history["branches"]) > 1 else ""

    sentences = [_step_text(step) + where(step) for step in history["steps"]]
    sentences += [
        f"possible, too few commits to confirm it: {_step_text(step)}{where(step)}" for step in history["possible"]
    ]
    for change in history["machine_changes"]:
        figure = change["figure"]
        levels = " -> ".join(BY_KEY[figure].written(change[side]) for side in ("before", "after"))
        sentences.append(
            f"machine changed on {change['time'][:10]} ({change['from']} -> {change['to']}): {figure} {levels}; "
            f"no commit is blamed for that{where(change)}"
        )
    sentences = sentences or ["no steps"]
    if history["uncommitted"]:
        sentences.append(
            f"{', '.join(history['uncommitted'])}: every run had uncommitted changes, so no steps are sought"
        )
    too_few = "too few runs on one machine and branch to tell a step from noise"
    sentences += [f"{figure}: {too_few}" for figure in history["too_few"]]
    return [line for text in sentences for line in textwrap.wrap(
        text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )]  # fmt: skip


def _step_text(step: Mapping[str, Any]) -> str:
    figure, change = step["figure"], step["change"]
    size = f"{change:+.1%}" if abs(change) < 100 else "from 0"
    before, after = (BY_KEY[figure].written(step[side]) for side in ("before", "after"))
    text = f"{figure} {before} -> {after} ({size}) since "
    text += f"{_commit_text(step['commit'])}"
    if step["p"] is not None:
        text += f", p = {step['p']:.1g}" if step["p"] >= 1e-4 else ", p < 0.0001"
    text += f"; {_commit_text(step['previous'])} still had the old level" if step["previous"]["time"] else ""
    if step["earliest"] != step["latest"]:
        text += f"; it may be any from {_commit_text(step['earliest'], False)} to {_commit_text(step['latest'], False)}"
    return text + (f" (on {step['host']})" if step["host"] else "")


def _commit_text(commit: Mapping[str, Any], dated: bool = True) -> str:
    if not commit["name"]:
        return f"the run of {_minute(commit['time'])}"
    changes = " with uncommitted changes" if commit["dirty"] else ""
    date = f" ({commit['time'][:10]})" if dated else ""
    return f"commit {_short(commit['name'].rstrip('+'), False)}{changes}{date}"


def plot_text(history: Mapping[str, Any], metrics: Sequence[AnyMetric]) -> str:
    """A plot for each figure that changed, a line for each that did not, and the steps beneath."""
    lines = [f"{history['model']} {history['variant']}"]
    for metric in metrics:
        figure = metric.key
        runs = [run for run in history["runs"] if run[figure] is not None]
        if not runs:
            continue
        values = [float(run[figure]) for run in runs]
        if min(values) == max(values):
            lines.append(f"  {figure}: {metric.written(values[0])} in {len(values)} run{'s' * (len(values) > 1)}")
            continue
        marked = {
            step["commit"]["name"] or step["commit"]["time"] for step in history["steps"] if step["figure"] == figure
        }
        lines += ["", f"  {figure}, {len(values)} runs from {runs[0]['time'][:10]} to {runs[-1]['time'][:10]}"]
        lines += _plot(metric, runs, values, marked)
    return "\n".join([*lines, "", *event_lines(history)])


def _plot(
    metric: AnyMetric, runs: Sequence[Mapping[str, Any]], values: Sequence[float], marked: set[str]
) -> Iterator[str]:
    """Dots in columns of one run or, where there are more runs than columns, the median of several."""
    low, high = min(values), max(values)
    hosts = list(dict.fromkeys(run["host"] for run in runs))
    columns = min(len(values), _WIDTH - _LABEL - 3)
    edges = [place * len(values) // columns for place in range(columns + 1)]
    rows = [[" "] * columns for _ in range(_HEIGHT)]
    under = [" "] * columns
    shown: set[str] = set()
    for column, (start, end) in enumerate(itertools.pairwise(edges)):
        place = round((median(values[start:end]) - low) / (high - low) * (_HEIGHT - 1))
        rows[_HEIGHT - 1 - place][column] = _MARKS[hosts.index(runs[start]["host"]) % len(_MARKS)]
        new = {name for run in runs[start:end] for name in _names(run)} & marked - shown
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


def _names(run: Mapping[str, Any]) -> tuple[str, ...]:
    return (run["commit"] + "+" * run["dirty"],) if run["commit"] else (run["time"],)


def _short(commit: str, dirty: bool) -> str:
    return (commit[:_SHORT] or "none") + "+" * dirty


def _minute(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M")
