"""The pytest hooks and nothing else. Loading this module imports neither numpy, MNN nor torch."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from pytest_mnnquant.checks import BASELINE, CHECKS, ENTRIES
from pytest_mnnquant.config import options
from pytest_mnnquant.plugin import fixtures, records


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register fixtures and markers; read the settings where models were asked for."""
    config.pluginmanager.register(fixtures, "mnnquant-fixtures")
    config.pluginmanager.register(Records(config), "mnnquant-records")
    config.addinivalue_line("markers", "mnn(model=, recipes=, modes=, **tolerances): what the mnn_* fixtures use")
    for check in (*CHECKS, BASELINE, ENTRIES):
        config.addinivalue_line("markers", f"mnn_{check}: the {check} check of a collected model")
    updates = config.getoption("mnn_update_baseline", False)
    if options.is_asked(config) or updates or options.may_hold_ids(config.args):
        from pytest_mnnquant.plugin import session, xdist_workers

        xdist_workers.hold_versions(config)
        session.start(config)
        xdist_workers.hold_files(config)


def pytest_report_header(config: pytest.Config) -> list[str] | None:
    """Say which versions and models are at work."""
    if not options.is_asked(config):
        return None
    from pytest_mnnquant.plugin.reporting import header

    return header(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that use a variant once for each recipe and mode."""
    fixtures.parametrize(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the items of the models that were asked for, before -k, -m and --lf choose."""
    if options.is_asked(config):
        from pytest_mnnquant.plugin.items import collect

        items[:] = [*collect(session), *items]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which items will run, so that a check knows whether the one it depends on does."""
    if options.is_asked(session.config):
        from pytest_mnnquant.plugin.session import session_of

        session_of(session.config).selected = frozenset(item.nodeid for item in session.items)


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Generator[None, None, None]:
    """Start xdist's workers."""
    with _told_plainly(session.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Start xdist's workers anew when they are lost."""
    with _told_plainly(session.config):
        return (yield)


@contextlib.contextmanager
def _told_plainly(config: pytest.Config) -> Iterator[None]:
    """Tell in one line why xdist's workers can't be started on another host."""
    try:
        yield
    except Exception as error:
        if options.is_asked(config):
            from pytest_mnnquant.plugin.xdist_workers import unstarted

            if told := unstarted(config, error):
                raise told from None
        raise


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell xdist's workers what they must know."""
    if options.is_asked(node.config):
        from pytest_mnnquant.plugin.xdist_workers import tell

        tell(node)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """End the run where one of xdist's workers can't work."""
    if options.is_asked(node.config):
        from pytest_mnnquant.plugin.xdist_workers import refuse

        refuse(node, error)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Over several hosts, keep the items of a variant together."""
    if not options.is_asked(config):
        return None
    from pytest_mnnquant.plugin.xdist_scheduler import scheduler

    return scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what was measured to the report, which travels from xdist workers to the controller."""
    report = yield
    if call.when == "call":
        report.mnnquant = records.kept(item)  # type: ignore[attr-defined]
        report.mnnquant_baseline = records.kept_baseline(item)  # type: ignore[attr-defined]
    if (
        report.skipped
        and type(item).__module__ == "pytest_mnnquant.plugin.items"
        and isinstance(report.longrepr, tuple)
    ):
        # -rs names the place of a skip: that is the check, not the line of ours that skips it.
        report.longrepr = (item.nodeid, 1, report.longrepr[2])
    return report


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
