"""`pytest-mnnquant history`: all runs of the suite, the steps in their figures, and the commits that made them."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.cli.history_text import history_text, plot_text
from pytest_mnnquant.findings.metric import BY_KEY, KEYS, METRICS
from pytest_mnnquant.history.as_json import OF_RUN, history_json
from pytest_mnnquant.history.series import AnyMetric, VariantHistory, histories
from pytest_mnnquant.history.storage import read_runs, storage_folder
from pytest_mnnquant.report.json_report import json_value

Tell = Callable[[str], None]
_COLUMNS: Final = (
    *("model", "variant", "time", "commit", "branch", "dirty", "complete", "machine", "cpu", "flags", "mnn"),
    *OF_RUN,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--storage",
        default="./.benchmarks",
        metavar="DIR",
        help="pytest-benchmark's storage, as given to --benchmark-storage (default: %(default)s)",
    )
    parser.add_argument("--model", default="*", metavar="GLOB", help="models, by name (default: all)")
    parser.add_argument("--variant", default="*", metavar="GLOB", help="variants, such as 'int8*' (default: all)")
    parser.add_argument("--branch", default="*", metavar="GLOB", help="runs of these branches (default: all)")
    parser.add_argument("--figure", choices=KEYS, help="this figure alone (default: all)")
    parser.add_argument(
        "--last", type=_count, metavar="N", help="list the last N runs of each variant; steps are sought in all runs"
    )
    parser.add_argument("--plot", action="store_true", help="draw the figures over the runs")
    parser.add_argument("--export", type=_export_file, metavar="FILE", help="write the runs to FILE.csv or FILE.json")


def show(given: argparse.Namespace, say: Tell, tell: Tell) -> int:
    """List, plot or export; `say` takes what was asked for, `tell` what went wrong. Returns the exit status."""
    folder = storage_folder(given.storage)
    if folder is None:
        tell(f"pytest-mnnquant: --storage {given.storage}: history is kept in folders only")
        return 2
    runs = read_runs(folder, tell)
    if not runs:
        tell(f"pytest-mnnquant: no runs of the suite in {folder.resolve()}; --storage DIR names another folder")
        return 1
    metrics = (BY_KEY[given.figure],) if given.figure else METRICS
    found = histories(runs, given.model, given.variant, metrics, given.branch)
    if not found:
        names = sorted({f"{one.model} {one.variant}" for run in runs for one in run.figures})
        branches = sorted({run.branch or "''" for run in runs})
        tell(
            f"pytest-mnnquant: none of the {len(runs)} runs in {folder.resolve()} has a variant for "
            f"--model {given.model} --variant {given.variant} --branch {given.branch}; "
            f"there are: {', '.join(names)}; branches: {', '.join(branches)}"
        )
        return 1
    there = [metric.key for metric in METRICS if any(_has(one, metric) for one in found)]
    found = tuple(one for one in found if any(_has(one, metric) for metric in metrics))
    if not found:
        tell(
            f"pytest-mnnquant: none of the {len(runs)} runs in {folder.resolve()} has {given.figure or 'a figure'}; "
            f"there are: {', '.join(there) or 'none'}"
        )
        return 1
    values = [history_json(one, metrics, given.last) for one in found]
    if given.export:
        _export(values, given.export)
    if given.json:
        say(json.dumps(json_value(values), indent=1))
    else:
        draw = plot_text if given.plot else history_text
        say("\n\n".join(draw(value, metrics) for value in values))
    return 0


def _has(history: VariantHistory, metric: AnyMetric) -> bool:
    return any(row.value(metric) is not None for row in history.rows)


def _export(values: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Raises `OSError`."""
    if path.suffix.lower() == ".json":
        path.write_text(json.dumps(json_value(list(values)), indent=1) + "\n", encoding="utf-8")
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for value in values:
            names = {"model": value["model"], "variant": value["variant"]}
            writer.writerows({**run, **names, "failed": " ".join(run["failed"])} for run in value["runs"])


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of runs, 1 or more")
    return int(value)


def _export_file(value: str) -> Path:
    path = Path(value)
    if path.suffix.lower() not in (".csv", ".json"):
        raise argparse.ArgumentTypeError(f"{value!r} ends neither in .csv nor in .json")
    return path
