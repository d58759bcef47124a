"""What a run reports: the header, the reports, the summary at the end, the history."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_mnnquant.cache.store import versions
from pytest_mnnquant.history.series import past_runs
from pytest_mnnquant.history.storage import storage_folder
from pytest_mnnquant.plugin.baseline_update import UpdateOutcome, update
from pytest_mnnquant.plugin.benchmark import suppress_tables
from pytest_mnnquant.plugin.history_recorder import Recorder
from pytest_mnnquant.plugin.node_ids import labels
from pytest_mnnquant.plugin.session import session_of, start_for_fixtures
from pytest_mnnquant.report.build import build_models, build_report
from pytest_mnnquant.report.figures import figures_of_models
from pytest_mnnquant.report.formats import Destination, file_format, formats_for, write_report
from pytest_mnnquant.report.github import append_summary
from pytest_mnnquant.report.model import BaselineReport, Report
from pytest_mnnquant.report.record import CheckRecord, check_from_json
from pytest_mnnquant.report.terminal import write_summary
from pytest_mnnquant.report.width import wrapped
from pytest_mnnquant.runtime.host import host_facts

# So many models are named in the header.
_NAMED: Final = 8
_HISTORY: Final = pytest.StashKey[Recorder]()
# How runs end that have something to report, be it that nothing was checked.
_ENDED: Final = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


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


@dataclass(frozen=True)
class RunEnd:
    """What there is to say at the end of a run.

    `accepted` says what an update of the baseline changed, `is_refused` whether it left out a variant. `problems` are
    why a file could not be written.
    """

    report: Report
    accepted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    is_refused: bool = False

    def exit_status(self, before: int) -> int:
        """The exit status of the run, from that of its tests."""
        if self.problems:
            return pytest.ExitCode.USAGE_ERROR
        return pytest.ExitCode.TESTS_FAILED if self.is_refused and before == pytest.ExitCode.OK else before


def baseline_report(record: Mapping[str, Any]) -> BaselineReport:
    """What the item of the baseline file found, from its record."""
    return BaselineReport(record["path"], check_from_json(record["check"]))


def finish(
    session: pytest.Session, records: Sequence[CheckRecord], baseline: BaselineReport | None, ended: int
) -> RunEnd:
    """Build the report of a run, write all that is requested, and update the baseline if that is requested.

    `baseline` is what the item of the baseline file found; `ended` counts the tests that ran.
    """
    config = session.config
    start_for_fixtures(config)  # Of tests that only xdist's workers have collected.
    report = build_report(records, versions(), session_of(config).settings.strict, baseline)
    history = write_history(config, report, session)
    is_written = records or (session.exitstatus in _ENDED and not config.option.collectonly)
    problems, warnings = write_reports(config, report) if is_written else ((), ())
    lost = session.testscollected - ended if ended else 0
    missing = f"{lost} of {session.testscollected} tests did not run, and are not told above" if lost > 0 else ""
    outcome = update(session, report) if config.getoption("mnn_update_baseline", None) else UpdateOutcome()
    return RunEnd(
        report=report,
        accepted=outcome.lines,
        warnings=(*warnings, *filter(None, (history, missing))),
        problems=(*problems, *outcome.problems),
        is_refused=outcome.is_refused,
    )


def write_reports(config: pytest.Config, report: Report) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write each report that was requested, and GitHub's summary if that is requested.

    Returns a line for each report that could not be written, and what to warn of.
    """
    paths = session_of(config).settings.reports
    if any(file_format(path).needs_history for path in paths):
        report = _with_history(config, report)
    problems = [_write(report, path) for path in paths]
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    formats = formats_for(Destination.JOB_SUMMARY) if summary else ()
    warnings = [append_summary(known.render(report), Path(str(summary))) for known in formats]
    return tuple(filter(None, problems)), tuple(filter(None, warnings))


def _with_history(config: pytest.Config, report: Report) -> Report:
    """The report, with the history of its variants."""
    folder = storage_folder(config.getoption("benchmark_storage", None))
    names = {(model.name, variant.label) for model in report.models for variant in model.variants}
    return dataclasses.replace(report, history=past_runs(folder, names))


def _write(report: Report, path: Path) -> str:
    try:
        write_report(report, path)
    except OSError as error:
        return f"--mnn-report: {path} can't be written: {error.strerror}"
    return ""


def show_end(reporter: pytest.TerminalReporter, end: RunEnd) -> None:
    """Write the summary to pytest's terminal reporter, annotations if GitHub reads them, and what went wrong."""
    columns = shutil.get_terminal_size().columns
    write_summary(reporter, end.report, reporter.verbosity, columns)
    if reporter.verbosity <= 0:
        suppress_tables(reporter.config)
    for known in formats_for(Destination.JOB_LOG) if os.environ.get("GITHUB_ACTIONS") == "true" else ():
        for line in known.render(end.report).splitlines():
            reporter.write_line(line)
    for line in end.accepted:
        reporter.write_line(line)
    for warning in end.warnings:
        reporter.write_line(f"WARNING: {warning}", yellow=True)
    for problem in end.problems:
        reporter.write_line(f"ERROR: {problem}", red=True)


def write_history_if_due(config: pytest.Config, records: Sequence[CheckRecord]) -> None:
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
