"""The pytest hooks of every run, and nothing else. Loading this module imports neither numpy, MNN nor torch."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_mnnquant.config import given, options
from pytest_mnnquant.plugin import fixtures, records


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> Generator[None, None, None]:
    """Before code of the user is loaded: go on in a child process if models may be judged."""
    if given.may_be_requested(early_config, args):
        from pytest_mnnquant.plugin.exit_status import ExitStatus, early_end_as_usage_error
        from pytest_mnnquant.plugin.supervisor import start

        supervised = start(early_config)
        if supervised is not None:
            early_config.pluginmanager.register(supervised, "mnnquant-supervised")
        early_config.pluginmanager.register(ExitStatus(), "mnnquant-exit-status")
        with early_end_as_usage_error():
            return (yield)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(
    config: pytest.Config,
) -> Generator[None, pytest.ExitCode | int | None, pytest.ExitCode | int | None]:
    """Keep the exit status of failed and unjudged models, and note it for the process that waits for this one."""
    try:
        status = yield
    except SystemExit as end:
        if end.code:
            raise
        status = pytest.ExitCode.OK
    if status == pytest.ExitCode.OK and config.pluginmanager.has_plugin("mnnquant-exit-status"):
        from pytest_mnnquant.plugin.exit_status import judged_status

        status = judged_status(config, int(status))
    supervised = config.pluginmanager.get_plugin("mnnquant-supervised")
    if supervised is not None and status is not None:
        supervised.note_status(int(status))
    return status


def pytest_configure(config: pytest.Config) -> None:
    """Register fixtures and markers; read the settings if models are requested."""
    config.pluginmanager.register(fixtures, "mnnquant-fixtures")
    config.addinivalue_line("markers", "mnn(model=, recipes=, modes=, **tolerances): settings of the mnn_* fixtures")
    has_suite = False
    if config.getoption("markers", False):
        _register_markers(config)
    if given.is_requested(config) or given.may_hold_ids(config.args):
        from pytest_mnnquant.plugin import session, suite_hooks, xdist_workers

        _register_markers(config)
        xdist_workers.end_with_controller(config)
        xdist_workers.require_same_versions(config)
        has_suite = session.start_suite(config)
        xdist_workers.require_same_files(config)
        if has_suite:
            config.pluginmanager.register(suite_hooks, "mnnquant-suite")
    if not has_suite and (flags := given.demands(config)):
        from pytest_mnnquant.plugin.unused_options import UnusedOptions

        config.pluginmanager.register(UnusedOptions(config, flags), "mnnquant-unused-options")
    config.pluginmanager.register(records.Records(config, has_suite), "mnnquant-records")


def _register_markers(config: pytest.Config) -> None:
    """Register the markers of collected checks; other runs do not need them."""
    from pytest_mnnquant.findings.catalogue import ALL_NAMES

    for check in ALL_NAMES:
        config.addinivalue_line("markers", f"mnn_{check}: the {check} check of a collected model")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that use a variant once for each recipe and mode."""
    fixtures.parametrize(metafunc)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the measured records to the report, which travels from xdist workers to the controller."""
    report = yield
    if call.when == "call":
        report.mnnquant = item.stash.get(records.RECORDS, [])  # type: ignore[attr-defined]
        report.mnnquant_baseline = item.stash.get(records.BASELINE_RECORD, None)  # type: ignore[attr-defined]
    return report
