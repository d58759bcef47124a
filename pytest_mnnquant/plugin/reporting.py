"""What a run tells: the header, the reports, the summary at the end, the history."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_mnnquant.cache.store import versions
from pytest_mnnquant.history.as_json import past_runs
from pytest_mnnquant.history.storage import storage_folder
from pytest_mnnquant.plugin.benchmark import suppress_tables
from pytest_mnnquant.plugin.history_recorder import Recorder
from pytest_mnnquant.plugin.session import session_of, variants
from pytest_mnnquant.recipes.recipe import recipe_named
from pytest_mnnquant.report.figures import figures_of_report
from pytest_mnnquant.report.files import write_report
from pytest_mnnquant.report.github import append_summary, commands
from pytest_mnnquant.report.json_report import build_report
from pytest_mnnquant.report.terminal import write_summary
from pytest_mnnquant.report.width import wrapped
from pytest_mnnquant.runtime.host import host_facts

# So many models are named in the header.
_NAMED: Final = 8
_HISTORY: Final = pytest.StashKey[Recorder]()


def header(config: pytest.Config) -> list[str]:
    """The lines of pytest's header: versions, what this machine can do, models with their recipes and modes."""
    tools = ", ".join(f"{name} {version}" for name, version in versions().items() if version and name != "numpy")
    host = host_facts()
    features = ", ".join(host.features) or "none of the instructions that int8 is fast with"
    if host.features and host.machine in ("x86_64", "AMD64"):
        features += " (no int8 instructions that MNN uses)"
    alike: dict[str, list[str]] = {}
    for gate in session_of(config).gates:
        labels = ", ".join(recipe_named(name).label(mode) for name, mode in variants(gate))
        alike.setdefault(labels, []).append(gate.settings.name)
    lines = [("mnnquant: ", f"{tools}; {host.machine} with {features}")]
    for labels, names in alike.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(("mnnquant: ", f"models: {', '.join(names[:_NAMED])}{more}; variants: {labels}"))
    columns = shutil.get_terminal_size().columns - 1
    return [line for first, text in lines for line in wrapped(first, text, columns, indent=len(first))]


def report_of(config: pytest.Config, records: list[dict[str, Any]], baseline: dict[str, Any] | None) -> dict[str, Any]:
    """The report of this run; `baseline` is what the item of the baseline file found."""
    return build_report(records, versions(), session_of(config).settings.strict, baseline)


def write_reports(
    config: pytest.Config, report: dict[str, Any], records: list[dict[str, Any]]
) -> tuple[list[str], list[str]]:
    """Write each report that was asked for, and GitHub's summary where that is wanted.

    Returns a line for each report that could not be written, and what to warn of.
    """
    problems = []
    for path in session_of(config).settings.reports:
        shown = {**report, "records": records, "past": _past(config, report)} if path.suffix == ".html" else report
        problems.append(_written(shown, path))
    unwritten = append_summary(report)
    return [one for one in problems if one], [unwritten] if unwritten else []


def tell(reporter: Any, report: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Write what is known at the end of a run to pytest's terminal reporter; annotations where GitHub reads them."""
    columns = shutil.get_terminal_size().columns
    write_summary(reporter, report, records, reporter.verbosity, columns)
    if reporter.verbosity <= 0:
        suppress_tables(reporter.config)
    for line in commands(report) if os.environ.get("GITHUB_ACTIONS") == "true" else ():
        reporter.write_line(line)


def keep_history(config: pytest.Config, records: list[dict[str, Any]], ended: pytest.Session | None = None) -> str:
    """Append what is known of this run to the history, now and then, and when it has ended.

    Returns a line that says why it can't be written. Without pytest-benchmark, or with a storage that is no folder,
    there is no history.
    """
    recorder = config.stash.get(_HISTORY, None)
    if recorder is None:
        folder = storage_folder(config.getoption("benchmark_storage", None))
        if folder is None or not records:
            return ""
        recorder = config.stash[_HISTORY] = Recorder(config, folder, versions()["MNN"])
    if ended is not None or recorder.is_due:
        complete = ended is not None and ended.exitstatus in (0, 1) and not (ended.shouldstop or ended.shouldfail)
        figures = tuple(figures_of_report(build_report(records, versions())))
        recorder.write(figures, finished=ended is not None, complete=complete)
    return recorder.problem


def _past(config: pytest.Config, report: dict[str, Any]) -> list[dict[str, Any]]:
    """The history of the variants of a report."""
    folder = storage_folder(config.getoption("benchmark_storage", None))
    return past_runs(folder, {(figures.model, figures.variant) for figures in figures_of_report(report)})


def _written(report: dict[str, Any], path: Path) -> str:
    try:
        write_report(report, path)
    except OSError as error:
        return f"--mnn-report: {path} can't be written: {error.strerror}"
    return ""
