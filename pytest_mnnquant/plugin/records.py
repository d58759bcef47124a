"""The records of tests, which travel with the tests' reports from xdist workers to the controller."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mnnquant.evidence.variant import VariantUnderTest
    from pytest_mnnquant.findings.finding import Result
    from pytest_mnnquant.plugin.reporting import RunEnd
    from pytest_mnnquant.report.model import BaselineReport
    from pytest_mnnquant.report.record import CheckRecord

#: The records of an item, one per check, as JSON.
RECORDS = pytest.StashKey[list[dict[str, Any]]]()
#: The record of the item of the baseline file, as JSON.
BASELINE_RECORD = pytest.StashKey[dict[str, Any]]()


def attach(item: pytest.Item, case: VariantUnderTest, result: Result) -> None:
    """Attach the records of an item to it, and add them to its JUnit properties."""
    attach_record(item, _record(item, case, result))


def attach_record(item: pytest.Item, record: CheckRecord) -> None:
    """Attach a record to an item, and add it to its JUnit properties."""
    from pytest_mnnquant.report.formats import properties_of_test  # Loaded only if something was measured.

    item.stash.setdefault(RECORDS, []).append(record.as_json())
    properties = properties_of_test(record.model, record.variant, record.check)
    item.user_properties += [pair for pair in properties if pair not in item.user_properties]


def attach_baseline(item: pytest.Item, path: Path, result: Result) -> None:
    """Attach the record of the item of the baseline file to it."""
    from pytest_mnnquant.findings.dataclass_json import as_json
    from pytest_mnnquant.report.record import reported

    item.stash[BASELINE_RECORD] = {"path": str(path), "check": as_json(reported(result))}


def attach_failure(item: pytest.Item, case: VariantUnderTest, result: Result) -> None:
    """Attach the record of a check that an exception ended; without the variant's files if it ends that too."""
    try:
        attach(item, case, result)
    except Exception:  # What ended the check may end this too.
        attach_record(item, _plain_record(item, case, result))


def _plain_record(item: pytest.Item, case: VariantUnderTest, result: Result) -> CheckRecord:
    """The record of a result, without what has to be measured or read from files."""
    from pytest_mnnquant.plugin.session import session_of
    from pytest_mnnquant.plugin.worker_input import input_of
    from pytest_mnnquant.report.record import CheckRecord, reported
    from pytest_mnnquant.report.variant_report import VariantReport

    gate, controller = case.source, input_of(item.config)
    return CheckRecord(
        model=gate.settings.name,
        source=gate.settings.source or gate.spec.text,
        file=str(gate.spec.path) if gate.spec.path else None,
        base=None,
        variant=VariantReport(case.recipe.name, case.mode, case.target, controller.host if controller else ""),
        check=reported(result, case.label, session_of(item.config).step_clock.take()),
        order=item.session.items.index(item),  # xdist's workers finish in any order.
    )


def _record(item: pytest.Item, case: VariantUnderTest, result: Result) -> CheckRecord:
    """The record of a result, with the data of its charts if a report shows charts."""
    from pytest_mnnquant.measurements.chart_samples import ChartSamples
    from pytest_mnnquant.plugin.session import session_of
    from pytest_mnnquant.report.formats import needs_charts

    charts = ChartSamples()
    if not case.target and needs_charts(session_of(item.config).settings.reports):
        from pytest_mnnquant.evidence.chart_samples import chart_samples

        charts = chart_samples(case, result.check)
    plain = _plain_record(item, case, result)
    variant = dataclasses.replace(case.report, worker=plain.variant.worker)
    return dataclasses.replace(plain, base=case.source.float_file, variant=variant, charts=charts)


class Records:
    """Collects the records of the items of this run; reports them at the end."""

    def __init__(self, config: pytest.Config, has_suite: bool) -> None:
        """`has_suite`: models are requested, so a report is written even if nothing was measured.

        `excused` are the failed checks, by id: whether a marker or a hook of the user made their tests not fail.
        """
        self.config = config
        self.has_suite = has_suite
        self.records: list[CheckRecord] = []
        self.baseline: BaselineReport | None = None
        self.ended: set[str] = set()
        self.excused: dict[str, bool] = {}
        self.end: RunEnd | None = None

    @property
    def _is_worker(self) -> bool:
        return hasattr(self.config, "workerinput")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the records from a report, and write them to the history, so that a killed run loses little."""
        self.ended.add(report.nodeid)
        if getattr(report, "mnnquant_failed", False):
            self.excused[report.nodeid] = report.outcome != "failed"
        new, baseline = getattr(report, "mnnquant", ()), getattr(report, "mnnquant_baseline", None)
        if self._is_worker or not (new or baseline):
            return
        from pytest_mnnquant.plugin.reporting import baseline_report, write_history_if_due
        from pytest_mnnquant.report.record import CheckRecord

        if baseline:
            self.baseline = baseline_report(baseline)
        if new:
            self.records.extend(map(CheckRecord.from_json, new))
            write_history_if_due(self.config, self.records)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Build the report and write it, once, in the process that gets all records."""
        if self._is_worker or not (self.records or self.has_suite):
            return
        from pytest_mnnquant.plugin.reporting import finish

        self.records.sort(key=lambda record: record.order)
        excused = [name for name, is_excused in self.excused.items() if is_excused]
        self.end = finish(session, self.records, self.baseline, len(self.ended), excused)
        session.exitstatus = self.end.exit_status(session.exitstatus)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show one table per model."""
        if self.end is not None:
            from pytest_mnnquant.plugin.reporting import show_end

            show_end(terminalreporter, self.end)
