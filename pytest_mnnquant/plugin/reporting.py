"""What a run reports: the header, the reports, the summary at the end, the history."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_mnnquant.cache.store import versions
from pytest_mnnquant.history.series import past_runs
from pytest_mnnquant.history.storage import storage_folder
from pytest_mnnquant.plugin.benchmark import suppress_tables
from pytest_mnnquant.plugin.history_recorder import Recorder
from pytest_mnnquant.plugin.node_ids import labels
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.report.build import build_models, build_report
from pytest_mnnquant.report.figures import figures_of_models
from pytest_mnnquant.report.formats import Destination, file_format, formats_for, write_report
from pytest_mnnquant.report.github import append_summary
from pytest_mnnquant.report.model import Report
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
    for source in session_of(config).sources:
        alike.setdefault(", ".join(labels(source)), []).append(source.settings.name)
    lines = [("mnnquant: ", f"{tools}; {host.machine} with {features}")]
    for variants, names in alike.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(("mnnquant: ", f"models: {', '.join(names[:_NAMED])}{more}; variants: {variants}"))
    columns = shutil.get_terminal_size().columns - 1
    return [line for first, text in lines for line in wrapped(first, text, columns, indent=len(first))]


def report_of(config: pytest.Config, records: list[dict[str, Any]], baseline: dict[str, Any] | None) -> Report:
    """The report of this run, with its history if a format shows that.

    `baseline` is what the item of the baseline file found.
    """
    settings = session_of(config).settings
    report = build_report(records, versions(), settings.strict, baseline)
    if any(file_format(path).needs_history for path in settings.reports):
        folder = storage_folder(config.getoption("benchmark_storage", None))
        names = {(model.name, variant.label) for model in report.models for variant in model.variants}
        report = dataclasses.replace(report, history=past_runs(folder, names))
    return report


def write_reports(config: pytest.Config, report: Report) -> tuple[list[str], list[str]]:
    """Write each report that was requested, and GitHub's summary if that is requested.

    Returns a line for each report that could not be written, and what to warn of.
    """
    problems = [_write(report, path) for path in session_of(config).settings.reports]
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    formats = formats_for(Destination.JOB_SUMMARY) if summary else ()
    warnings = [append_summary(known.render(report), Path(str(summary))) for known in formats]
    return [*filter(None, problems)], [*filter(None, warnings)]


def _write(report: Report, path: Path) -> str:
    try:
        write_report(report, path)
    except OSError as error:
        return f"--mnn-report: {path} can't be written: {error.strerror}"
    return ""


def show_report(reporter: Any, report: Report) -> None:
    """Write the summary to pytest's terminal reporter; annotations if GitHub reads them."""
    columns = shutil.get_terminal_size().columns
    write_summary(reporter, report, reporter.verbosity, columns)
    if reporter.verbosity <= 0:
        suppress_tables(reporter.config)
    for known in formats_for(Destination.JOB_LOG) if os.environ.get("GITHUB_ACTIONS") == "true" else ():
        for line in known.render(report).splitlines():
            reporter.write_line(line)


def write_history_if_due(config: pytest.Config, records: list[dict[str, Any]]) -> None:
    """Append what is known of this run to the history, now and then while it goes on."""
    recorder = _recorder(config)
    if recorder is not None and recorder.is_due:
        recorder.write(tuple(figures_of_models(build_models(records))))


def write_history(config: pytest.Config, report: Report, session: pytest.Session) -> str:
    """Append this run to the history when it has ended. Returns a line that says why it can't be written."""
    recorder = _recorder(config) if report.models else None
    if recorder is None:
        return ""
    complete = session.exitstatus in (0, 1) and not (session.shouldstop or session.shouldfail)
    recorder.write(tuple(figures_of_models(report.models)), finished=True, complete=complete)
    return recorder.problem


def _recorder(config: pytest.Config) -> Recorder | None:
    """What writes the history; None without pytest-benchmark, or with a storage that is not a folder."""
    recorder = config.stash.get(_HISTORY, None)
    if recorder is None:
        folder = storage_folder(config.getoption("benchmark_storage", None))
        if folder is None:
            return None
        recorder = config.stash[_HISTORY] = Recorder(config, folder, versions()["MNN"])
    return recorder
