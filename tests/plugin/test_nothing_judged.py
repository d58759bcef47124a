"""A run that collects models and judges none of them says so in a line; with `--mnn-strict` it fails."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Run

LINE = "no model was judged"
MODEL = ("--mnn-model=net.py:build", "--mnn-recipe=w8", "--benchmark-disable")
PASSES = "def test_passes():\n    assert True\n"


@pytest.mark.parametrize(
    ("chosen", "status", "strict"),
    [
        (("-k", "latency"), 0, 1),  # Skipped: benchmarks are disabled.
        (("-k", "passes", "."), 0, 1),  # All checks are deselected, another test runs.
        (("-k", "no_such_test"), 5, 5),
    ],
)
def test_it_is_said_and_fails_if_strict(
    run: Run, pytester: pytest.Pytester, chosen: tuple[str, ...], status: int, strict: int
) -> None:
    pytester.makepyfile(test_of_users=PASSES)
    usual = run(*MODEL, *chosen)
    assert (usual.status, LINE in usual.text) == (status, True)
    assert run(*MODEL, "--mnn-strict", *chosen).status == strict


def test_a_model_of_skipped_checks_is_not_ok(run: Run) -> None:
    assert "net: not judged" in run(*MODEL, "-k", "latency").text


@pytest.mark.parametrize("chosen", [("-k", "size"), ("--collect-only",)])
def test_it_is_not_said_otherwise(run: Run, chosen: tuple[str, ...]) -> None:
    found = run(*MODEL, "--mnn-strict", *chosen)
    assert (found.status, LINE in found.text) == (0, False)


def test_models_of_the_ini_file_may_be_deselected(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmnn_model = net.py:build\nmnn_recipe = w8\nmnn_strict = true\n")
    pytester.makepyfile(test_of_users=PASSES)
    found = run("-k", "passes")
    assert (found.status, LINE in found.text) == (0, True)


EXPECTS = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.endswith("::size"):
            item.add_marker(pytest.mark.xfail({mark}))
"""
CHANGES = """
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    report.outcome = "passed"
    return report
"""
SWALLOWS = """
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    except Exception:
        return None
"""
EXPECTED = "WARNING: 1 failed check is expected by xfail markers or hooks: net.py:build::w8::size"


@pytest.mark.parametrize("code", [EXPECTS.format(mark=""), EXPECTS.format(mark="run=False"), CHANGES, SWALLOWS])
def test_a_failure_that_is_expected_is_named_and_fails_if_strict(
    run: Run, pytester: pytest.Pytester, code: str
) -> None:
    pytester.makeconftest(code)
    options = (*MODEL, "-k", "size", "--mnn-min-size-ratio=100")
    expected = run(*options)
    assert (expected.status, EXPECTED in expected.lines) == (0, True)
    assert run(*options, "--mnn-strict").status == 1


def test_a_failure_that_is_not_expected_is_not_named(run: Run) -> None:
    failed = run(*MODEL, "-k", "size", "--mnn-min-size-ratio=100")
    assert (failed.status, "xfail" in failed.text) == (1, False)
