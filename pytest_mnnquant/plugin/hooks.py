"""The pytest hooks and nothing else. Loading this module imports neither numpy, MNN nor torch."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from pytest_mnnquant.config import options
from pytest_mnnquant.findings.check_names import BASELINE, CHECKS, ENTRIES
from pytest_mnnquant.plugin import fixtures, records
from pytest_mnnquant.plugin.records import Records


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
        report.mnnquant = item.stash.get(records.RECORDS, [])  # type: ignore[attr-defined]
        report.mnnquant_baseline = item.stash.get(records.BASELINE_RECORD, None)  # type: ignore[attr-defined]
    if (
        report.skipped
        and type(item).__module__ == "pytest_mnnquant.plugin.items"
        and isinstance(report.longrepr, tuple)
    ):
        # -rs names the place of a skip: that is the check, not the line of ours that skips it.
        report.longrepr = (item.nodeid, 1, report.longrepr[2])
    return report
