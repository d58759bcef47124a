"""What tests measured: kept on the item, carried by its report from an xdist worker to the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_mnnquant.config import options

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mnnquant.evidence.variant import VariantUnderTest
    from pytest_mnnquant.findings.finding import Result

#: What an item measured, and its part of the variant's portrait.
RECORDS = pytest.StashKey[list[tuple["VariantUnderTest", "Result", dict[str, Any]]]]()
#: What the item of the baseline file found, and that file.
ENTRIES_RECORD = pytest.StashKey[tuple["Path", "Result"]]()
#: By this name xdist's workers on other hosts know how the controller calls their host.
ELSEWHERE: Final = "mnnquant_elsewhere"


def keep(item: pytest.Item, case: VariantUnderTest, result: Result) -> None:
    """Remember what an item measured, and have it told in its JUnit record.

    For an HTML report, what there is to show of it too.
    """
    from pytest_mnnquant.report.properties import properties  # Not where nothing is ever measured.

    shown: dict[str, Any] = {}
    if not case.target and any(name.endswith(".html") for name in options.reports(item.config)):
        from pytest_mnnquant.evidence.chart_samples import portrait

        shown = portrait(case, result.check)
    item.stash.setdefault(RECORDS, []).append((case, result, shown))
    told = properties(case.gate.settings.name, case.recipe.name, case.mode, result.as_json(), case.target)
    item.user_properties += [one for one in told if one not in item.user_properties]


def kept(item: pytest.Item) -> list[dict[str, Any]]:
    """What an item measured, as plain data; `order` is its place in the run, which workers (-n) end in any order."""
    found = item.stash.get(RECORDS, [])
    order = item.session.items.index(item) if found else 0
    host = getattr(item.config, "workerinput", {}).get(ELSEWHERE)
    where = {"worker": host} if host else {}
    return [{**_record(case, result, where), "portrait": shown, "order": order} for case, result, shown in found]


def keep_baseline(item: pytest.Item, path: Path, result: Result) -> None:
    """Remember what the item of the baseline file found."""
    item.stash[ENTRIES_RECORD] = (path, result)


def kept_baseline(item: pytest.Item) -> dict[str, Any] | None:
    """What the item of the baseline file found, as plain data; None for all other items."""
    path, result = item.stash.get(ENTRIES_RECORD, (None, None))
    return None if result is None else {"path": str(path), "check": result.as_json()}


def _record(case: VariantUnderTest, result: Result, where: dict[str, str]) -> dict[str, Any]:
    gate = case.gate
    return {
        "model": gate.settings.name,
        "source": gate.settings.source or gate.spec.text,
        "file": str(gate.spec.path) if gate.spec.path else None,
        "float": gate.float_json,
        "variant": case.as_json | where,
        "label": case.label,
        "check": result.as_record(),
    }


# How runs end that have something to report, be it that nothing was checked.
_ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Records:
    """Gathers what the items of this run measured; tells it at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.found: list[dict[str, Any]] = []
        self.baseline: dict[str, Any] | None = None
        self.report: dict[str, Any] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.accepted: tuple[str, ...] = ()
        self.ended: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the records off a report, and keep them: a run that is killed loses little."""
        new = getattr(report, "mnnquant", ())
        self.ended.add(report.nodeid)
        self.found.extend(new)
        self.baseline = getattr(report, "mnnquant_baseline", None) or self.baseline
        if new and not hasattr(self.config, "workerinput"):
            from pytest_mnnquant.plugin.reporting import keep_history

            keep_history(self.config, self.found)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports, once, where all records arrive."""
        self.found.sort(key=lambda record: int(record["order"]))
        if (self.found or options.is_asked(self.config)) and not hasattr(self.config, "workerinput"):
            from pytest_mnnquant.plugin.reporting import keep_history, report_of, write_reports

            unkept = keep_history(self.config, self.found, ended=session)
            self.report = report_of(self.config, self.found, self.baseline)
            if self.found or (session.exitstatus in _ENDED and not self.config.option.collectonly):
                self.problems, self.warnings = write_reports(self.config, self.report, self.found)
            self.warnings += [unkept] if unkept else []
            if self.ended and (lost := session.testscollected - len(self.ended)) > 0:
                self.warnings.append(f"{lost} of {session.testscollected} tests did not run, and are not told above")
            if self.config.getoption("mnn_update_baseline", None):
                from pytest_mnnquant.plugin.baseline_update import update

                told = update(session, self.found)
                self.accepted = told.lines
                self.problems += told.problems
                if told.is_refused and session.exitstatus == pytest.ExitCode.OK:
                    session.exitstatus = pytest.ExitCode.TESTS_FAILED
            if self.problems:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show one table a model."""
        if self.report:
            from pytest_mnnquant.plugin.reporting import tell

            tell(terminalreporter, self.report, self.found)
        for line in self.accepted:
            terminalreporter.write_line(line)
        for warning in self.warnings:
            terminalreporter.write_line(f"WARNING: {warning}", yellow=True)
        for problem in self.problems:
            terminalreporter.write_line(f"ERROR: {problem}", red=True)
