"""Hooks of a conftest.py do not turn a failed or unjudged run into exit status 0."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_mnnquant.plugin.exit_status import ExitStatus, early_end_as_usage_error

MODEL = ("--mnn-model=net.onnx", "-p", "no:cacheprovider", "-p", "no:benchmark")
LINE = "ERROR: exit status 0, required 1: "
EXIT = "import pytest\n\ndef {hook}({arguments}):\n    pytest.exit('x', returncode=0)\n"
COLLECTS_NOTHING = "\ndef pytest_collection_modifyitems(items):\n    items.clear()\n"
RETURNS = "def pytest_cmdline_main():\n    return 0\n"
LEAVES = "def pytest_cmdline_main():\n    raise SystemExit\n"
PASSES = "def test_passes():\n    pass\n"


@pytest.mark.parametrize(
    "code",
    [
        EXIT.format(hook="pytest_configure", arguments="config"),
        EXIT.format(hook="pytest_sessionstart", arguments="session"),
        EXIT.format(hook="pytest_collection", arguments="session"),
        EXIT.format(hook="pytest_sessionfinish", arguments="session") + COLLECTS_NOTHING,
        RETURNS,
        LEAVES,
    ],
)
def test_an_end_before_the_models_is_not_0(pytester: pytest.Pytester, code: str) -> None:
    pytester.makeconftest(code)
    (pytester.path / "net.onnx").touch()
    ended = pytester.runpytest_inprocess(*MODEL)
    assert ended.ret == 1
    assert LINE in ended.stderr.str()


@pytest.mark.parametrize("option", ["--help", "--markers", "--version"])
def test_what_only_prints_is_0(pytester: pytest.Pytester, option: str) -> None:
    (pytester.path / "net.onnx").touch()
    assert pytester.runpytest_inprocess(*MODEL, option).ret == 0


@pytest.mark.parametrize("code", [RETURNS, EXIT.format(hook="pytest_sessionstart", arguments="session")])
def test_a_run_without_models_ends_as_the_hook_says(pytester: pytest.Pytester, code: str) -> None:
    pytester.makeini("[pytest]\nmnn_timeout = 300\n")
    pytester.makeconftest(code)
    pytester.makepyfile(test_of_users=PASSES)
    assert pytester.runpytest_inprocess().ret == 0


def test_a_changed_status_does_not_hide_a_failed_check() -> None:
    plugin = ExitStatus()
    report: Any = SimpleNamespace(nodeid="net.py:build::w8::size", outcome="failed", mnnquant_failed=True)
    plugin.pytest_runtest_logreport(report)
    plugin.pytest_sessionfinish()
    config: Any = SimpleNamespace(getoption=lambda *_: None)
    assert plugin.problem(config)


def test_a_conftest_that_leaves_is_a_usage_error() -> None:
    with pytest.raises(pytest.UsageError), early_end_as_usage_error():
        raise SystemExit(0)
    with pytest.raises(SystemExit), early_end_as_usage_error():
        raise SystemExit(3)
