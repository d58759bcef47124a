"""The output of a run: the header, the reports, the summary at the end, the history."""

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
from pytest_mnnquant.findings.finding import FAILED, PASSED
from pytest_mnnquant.history.series import past_runs
from pytest_mnnquant.history.storage import storage_folder
from pytest_mnnquant.plugin.baseline_update import UpdateOutcome, update
from pytest_mnnquant.plugin.benchmark import suppress_tables
from pytest_mnnquant.plugin.history_recorder import Recorder
from pytest_mnnquant.plugin.node_ids import labels
from pytest_mnnquant.plugin.session import session_of, start_for_fixtures
from pytest_mnnquant.report.build import build_models, build_report
from pytest_mnnquant.report.durations import write_durations
from pytest_mnnquant.report.figures import figures_of_models
from pytest_mnnquant.report.formats import Destination, file_format, formats_for, write_report
from pytest_mnnquant.report.github import append_summary
from pytest_mnnquant.report.model import BaselineReport, Report
from pytest_mnnquant.report.record import CheckRecord, check_from_json
from pytest_mnnquant.report.terminal import write_summary
from pytest_mnnquant.report.width import wrapped
from pytest_mnnquant.runtime.host import host_facts

# The number of models named in the header.
_NAMED: Final = 8
_HISTORY: Final = pytest.StashKey[Recorder]()
# The exit statuses of runs that are reported, even if nothing was checked.
_ENDED: Final = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


def header(config: pytest.Config) -> list[str]:
    """The lines of pytest's header: versions, instruction sets of this machine, models with their recipes and modes."""
    tools = ", ".join(f"{name} {version}" for name, version in versions().items() if version and name != "numpy")
    host = host_facts()
    features = ", ".join(host.features) or "no int8-accelerating instructions"
    if host.features and host.machine in ("x86_64", "AMD64"):
        features += " (MNN uses none of them for int8)"
    alike: dict[str, list[str]] = {}
    for source in session_of(config).sources:
        alike.setdefault(", ".join(labels(source)), []).append(source.settings.name)
    lines = [("mnnquant: ", f"{tools}; {host.machine}, {features}")]
    for variants, names in alike.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(("mnnquant: ", f"models: {', '.join(names[:_NAMED])}{more}; variants: {variants}"))
    columns = shutil.get_terminal_size().columns - 1
    return [line for first, text in lines for line in wrapped(first, text, columns, indent=len(first))]


@dataclass(frozen=True)
class RunEnd:
    """The end of a run: its report and the lines below the summary.

    `accepted` are the changes of the baseline, `is_refused` is whether an update left out a variant. `problems` say why
    a file could not be written. `must_fail`: no model was checked, or a failed check was expected, which are failures
    with --mnn-strict.
    """

    report: Report
    accepted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    is_refused: bool = False
    must_fail: bool = False

    def exit_status(self, before: int) -> int:
        """The exit status of the run, from that of its tests."""
        if self.problems:
            return pytest.ExitCode.USAGE_ERROR
        fails = before == pytest.ExitCode.OK and (self.is_refused or self.must_fail)
        return pytest.ExitCode.TESTS_FAILED if fails else before


def baseline_report(record: Mapping[str, Any]) -> BaselineReport:
    """The report of the baseline file, from the record of its item."""
    return BaselineReport(record["path"], check_from_json(record["check"]))


def finish(
    session: pytest.Session,
    records: Sequence[CheckRecord],
    baseline: BaselineReport | None,
    ended: int,
    excused: Sequence[str],
) -> RunEnd:
    """Build the report of a run, write the requested files, and update the baseline if requested.

    `baseline` is the report of the baseline file; `ended` is the number of tests that ran. `excused` are the ids of
    failed checks whose tests did not fail.
    """
    config = session.config
    start_for_fixtures(config)  # If only xdist's workers have collected the tests.
    report = build_report(records, versions(), session_of(config).settings.strict, baseline)
    history = write_history(config, report, session)
    is_written = records or (session.exitstatus in _ENDED and not config.option.collectonly)
    problems, warnings = write_reports(config, report) if is_written else ((), ())
    lost = session.testscollected - ended if ended else 0
    total = session.testscollected
    missing = f"{lost} of {total} tests did not run and are missing from the summary above" if lost > 0 else ""
    unjudged = _unjudged(session, records)
    outcome = update(session, report) if config.getoption("mnn_update_baseline", None) else UpdateOutcome()
    return RunEnd(
        report=report,
        accepted=outcome.lines,
        warnings=(
            *warnings,
            *session_of(config).store.repaired,
            *filter(None, (history, missing, unjudged, _excuse(excused))),
        ),
        problems=(*problems, *outcome.problems),
        is_refused=outcome.is_refused,
        # Models of the ini file may be deselected on purpose: other tests were meant.
        must_fail=report.strict and bool(excused or (unjudged and (records or _is_typed(config)))),
    )


def _is_typed(config: pytest.Config) -> bool:
    """Whether the command line names models."""
    return any(config.getoption(key, None) for key in ("mnn_model", "mnn_config"))


def _unjudged(session: pytest.Session, records: Sequence[CheckRecord]) -> str:
    """A line if models were requested, but no check passed or failed; else nothing."""
    config = session.config
    names = [source.settings.name for source in session_of(config).sources]
    ended_early = session.exitstatus not in _ENDED or config.option.collectonly
    if not names or ended_early or any(record.check.outcome in (PASSED, FAILED) for record in records):
        return ""
    why = "all checks were skipped or inconclusive" if records else "none of their checks ran"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"no model was judged: {why} ({', '.join(names[:_NAMED])}{more})"


def _excuse(names: Sequence[str]) -> str:
    """A line on failed checks whose tests did not fail; else nothing."""
    if not names:
        return ""
    checks = "1 failed check is" if len(names) == 1 else f"{len(names)} failed checks are"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{checks} expected by xfail markers or hooks: {', '.join(names[:_NAMED])}{more}"


def write_reports(config: pytest.Config, report: Report) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write each requested report, and GitHub's summary if requested.

    Returns a line for each report that could not be written, and the warnings.
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
    """Write the summary to pytest's terminal reporter, annotations on GitHub, warnings and errors."""
    columns = shutil.get_terminal_size().columns
    write_summary(reporter, end.report, reporter.verbosity, columns)
    if (count := session_of(reporter.config).settings.durations) is not None:
        write_durations(reporter, end.report, count, columns)
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
    """Write the metrics so far to the history, in intervals during the run."""
    recorder = _recorder(config)
    if recorder is not None and recorder.is_due:
        recorder.write(tuple(figures_of_models(build_models(records))))


def write_history(config: pytest.Config, report: Report, session: pytest.Session) -> str:
    """Write this run to the history at its end. Returns a line that says why it can't be written; else empty."""
    recorder = _recorder(config) if report.models else None
    if recorder is None:
        return ""
    complete = session.exitstatus in (0, 1) and not (session.shouldstop or session.shouldfail)
    recorder.write(tuple(figures_of_models(report.models)), finished=True, complete=complete)
    return recorder.problem


def _recorder(config: pytest.Config) -> Recorder | None:
    """The recorder of the history; None without pytest-benchmark, or with a storage that is not a folder."""
    recorder = config.stash.get(_HISTORY, None)
    if recorder is None:
        folder = storage_folder(config.getoption("benchmark_storage", None))
        if folder is None:
            return None
        recorder = config.stash[_HISTORY] = Recorder(config, folder, versions()["MNN"])
    return recorder
