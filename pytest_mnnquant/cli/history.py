"""`pytest-mnnquant history`: all runs of the suite, the steps in their metrics, and the commits that caused them."""

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
from pytest_mnnquant.history.storage import Run, read_runs, storage_folder
from pytest_mnnquant.history.view import HistoryView
from pytest_mnnquant.report.json_report import json_value

Print = Callable[[str], None]
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
    parser.add_argument("--figure", choices=KEYS, help="this metric only (default: all)")
    parser.add_argument(
        "--last", type=_count, metavar="N", help="list the last N runs of each variant; all runs are searched for steps"
    )
    parser.add_argument("--plot", action="store_true", help="plot the metrics over the runs")
    parser.add_argument("--export", type=_export_file, metavar="FILE", help="write the runs to FILE.csv or FILE.json")


def run(given: argparse.Namespace, print_line: Print, print_error: Print) -> int:
    """List, plot or export the runs. Returns the exit status."""
    folder = storage_folder(given.storage)
    if folder is None:
        print_error(f"pytest-mnnquant: --storage {given.storage}: must be a folder")
        return 2
    runs = read_runs(folder, print_error)
    if not runs:
        print_error(
            f"pytest-mnnquant: no runs of the suite in {folder.resolve()}; choose another folder with --storage DIR"
        )
        return 1
    metrics = (BY_KEY[given.figure],) if given.figure else METRICS
    variants = histories(runs, given.model, given.variant, metrics, given.branch)
    measured = tuple(variant for variant in variants if any(_has(variant, metric) for metric in metrics))
    if not measured:
        problem = _why_not_measured(given, variants) if variants else _why_none(given, runs)
        print_error(f"pytest-mnnquant: none of the {len(runs)} runs in {folder.resolve()} has {problem}")
        return 1
    views = [HistoryView(variant, metrics, given.last) for variant in measured]
    values = [history_json(view) for view in views]
    if given.export:
        _export(values, given.export)
    if given.json:
        print_line(json.dumps(json_value(values), indent=1))
    else:
        draw = plot_text if given.plot else history_text
        print_line("\n\n".join(draw(view) for view in views))
    return 0


def _why_none(given: argparse.Namespace, runs: Sequence[Run]) -> str:
    names = sorted({f"{figures.model} {figures.variant}" for run in runs for figures in run.figures})
    branches = sorted({run.branch or "''" for run in runs})
    return (
        f"a variant for --model {given.model} --variant {given.variant} --branch {given.branch}; "
        f"recorded: {', '.join(names)}; branches: {', '.join(branches)}"
    )


def _why_not_measured(given: argparse.Namespace, variants: Sequence[VariantHistory]) -> str:
    keys = [metric.key for metric in METRICS if any(_has(variant, metric) for variant in variants)]
    return f"{given.figure or 'metrics'}; recorded: {', '.join(keys) or 'none'}"


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
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of runs (1 or more)")
    return int(value)


def _export_file(value: str) -> Path:
    path = Path(value)
    if path.suffix.lower() not in (".csv", ".json"):
        raise argparse.ArgumentTypeError(f"{value!r}: unknown suffix; expected .csv or .json")
    return path
