"""What tests measured, as records that travel with the tests' reports from xdist workers to the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mnnquant.evidence.variant import VariantUnderTest
    from pytest_mnnquant.findings.finding import Result
    from pytest_mnnquant.report.model import Report

#: What an item measured, a record for each check.
RECORDS = pytest.StashKey[list[dict[str, Any]]]()
#: What the item of the baseline file found.
BASELINE_RECORD = pytest.StashKey[dict[str, Any]]()


def attach(item: pytest.Item, case: VariantUnderTest, result: Result) -> None:
    """Attach what an item measured to it, and have its JUnit record say it.

    If a report shows charts, what they show too.
    """
    from pytest_mnnquant.plugin.session import session_of  # Not if nothing is ever measured.
    from pytest_mnnquant.report import build, formats

    charts: dict[str, Any] = {}
    if not case.target and formats.needs_charts(session_of(item.config).settings.reports):
        from pytest_mnnquant.evidence.chart_samples import chart_samples
        from pytest_mnnquant.findings.dataclass_json import as_json

        charts = as_json(chart_samples(case, result.check))
    record = {**_record(item, case, result), "charts": charts}
    item.stash.setdefault(RECORDS, []).append(record)
    variant, check = build.variant_report(record["variant"]), build.check_report(record["check"])
    properties = formats.properties_of_test(record["model"], variant, check)
    item.user_properties += [pair for pair in properties if pair not in item.user_properties]


def attach_baseline(item: pytest.Item, path: Path, result: Result) -> None:
    """Attach what the item of the baseline file found to it."""
    item.stash[BASELINE_RECORD] = {"path": str(path), "check": result.as_record()}


def _record(item: pytest.Item, case: VariantUnderTest, result: Result) -> dict[str, Any]:
    """What an item measured, as JSON; `order` is its place in the run, which workers (-n) end in any order."""
    gate = case.gate
    from pytest_mnnquant.plugin.worker_input import input_of

    controller = input_of(item.config)
    host = controller.host if controller is not None else ""
    return {
        "model": gate.settings.name,
        "source": gate.settings.source or gate.spec.text,
        "file": str(gate.spec.path) if gate.spec.path else None,
        "float": gate.float_json,
        "variant": case.as_json | ({"worker": host} if host else {}),
        "check": result.as_record(),
        "order": item.session.items.index(item),
    }


# How runs end that have something to report, be it that nothing was checked.
_ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Records:
    """Gathers the records of the items of this run; reports them at the end."""

    def __init__(self, config: pytest.Config, has_suite: bool) -> None:
        """`has_suite`: models are requested, so that there is something to report even if nothing is measured."""
        self.config = config
        self.has_suite = has_suite
        self.records: list[dict[str, Any]] = []
        self.baseline: dict[str, Any] | None = None
        self.report: Report | None = None
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.accepted: tuple[str, ...] = ()
        self.ended: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the records off a report, and write them to the history: a run that is killed loses little."""
        new = getattr(report, "mnnquant", ())
        self.ended.add(report.nodeid)
        self.records.extend(new)
        self.baseline = getattr(report, "mnnquant_baseline", None) or self.baseline
        if new and not hasattr(self.config, "workerinput"):
            from pytest_mnnquant.plugin.reporting import write_history_if_due

            write_history_if_due(self.config, self.records)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Build the report and write it, once, on the process to which all records come."""
        self.records.sort(key=lambda record: int(record["order"]))
        if (self.records or self.has_suite) and not hasattr(self.config, "workerinput"):
            from pytest_mnnquant.plugin.reporting import report_of, write_history, write_reports
            from pytest_mnnquant.plugin.session import start_for_fixtures

            start_for_fixtures(self.config)  # Of tests that only xdist's workers have collected.
            self.report = report_of(self.config, self.records, self.baseline)
            history_problem = write_history(self.config, self.report, session)
            if self.records or (session.exitstatus in _ENDED and not self.config.option.collectonly):
                self.problems, self.warnings = write_reports(self.config, self.report)
            self.warnings += [history_problem] if history_problem else []
            if self.ended and (lost := session.testscollected - len(self.ended)) > 0:
                self.warnings.append(f"{lost} of {session.testscollected} tests did not run, and are not told above")
            if self.config.getoption("mnn_update_baseline", None):
                from pytest_mnnquant.plugin.baseline_update import update

                outcome = update(session, self.report)
                self.accepted = outcome.lines
                self.problems += outcome.problems
                if outcome.is_refused and session.exitstatus == pytest.ExitCode.OK:
                    session.exitstatus = pytest.ExitCode.TESTS_FAILED
            if self.problems:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show one table per model."""
        if self.report:
            from pytest_mnnquant.plugin.reporting import show_report

            show_report(terminalreporter, self.report)
        for line in self.accepted:
            terminalreporter.write_line(line)
        for warning in self.warnings:
            terminalreporter.write_line(f"WARNING: {warning}", yellow=True)
        for problem in self.problems:
            terminalreporter.write_line(f"ERROR: {problem}", red=True)
