"""The pytest hooks of a run that has models to test. Registered, and loaded, in such runs only."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import pytest

from pytest_mnnquant.plugin.items import collect, remember_selected
from pytest_mnnquant.plugin.plain_item import PlainItem
from pytest_mnnquant.plugin.reporting import header
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.plugin.xdist_workers import brief_worker, refuse_broken_worker, start_failures_as_usage_errors

# The key of a worker's output.
_WARNINGS: Final = "mnnquant_cache_warnings"


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Show versions and models."""
    return header(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add the items of the requested models, before -k, -m and --lf choose."""
    items[:] = [*collect(session), *items]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember the selected items, so that a check knows whether the one it depends on runs."""
    remember_selected(session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make -rs name the skipped check, not the line of this package that skips it. Note a failure in any case."""
    report = yield
    if not isinstance(item, PlainItem):
        return report
    if report.skipped and isinstance(report.longrepr, tuple):
        report.longrepr = (item.nodeid, 1, report.longrepr[2])
    has_failed = call.when == "call" and item.has_failed
    report.mnnquant_failed = has_failed or (report.skipped and hasattr(report, "wasxfail"))  # type: ignore[attr-defined]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the warnings of a worker's cache to its controller."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_WARNINGS] = list(session_of(session.config).store.repaired)


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Generator[None, None, None]:
    """Report in one line why xdist's workers can't be started on another host."""
    with start_failures_as_usage_errors(session.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """The same for workers that are restarted after a loss."""
    with start_failures_as_usage_errors(session.config):
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send xdist's workers their input."""
    brief_worker(node)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """End the run if one of xdist's workers can't work; take the warnings of its cache."""
    session_of(node.config).store.repaired += getattr(node, "workeroutput", {}).get(_WARNINGS, [])
    refuse_broken_worker(node, error)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Over several hosts, keep the items of a variant together."""
    from pytest_mnnquant.plugin.xdist_scheduler import scheduler  # Only with xdist, which may not be installed.

    return scheduler(config, log)
