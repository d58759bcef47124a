"""What pytest and pytest-benchmark do not promise, and this plugin needs: each name is still there, and means the same.

A release that renames one of them fails here, and not in the middle of a user's run.
"""

from __future__ import annotations

import pytest

from pytest_mnnquant.plugin.benchmark import benchmark_session
from pytest_mnnquant.plugin.fixtures import _overrides_model
from pytest_mnnquant.plugin.progress_line import _current_line


def test_the_terminal_writer_has_the_text_of_its_line(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfigure()
    writer = config.get_terminal_writer()
    assert hasattr(writer, "_current_line"), "pytest renamed TerminalWriter._current_line: see progress_line.py"
    writer.line("before")
    writer.write("手 is")
    writer.write(" here")
    assert _current_line(config) == "手 is here"


class Overrides:
    """Asks of each test whether its own fixture gives the model."""

    def __init__(self) -> None:
        self.answers: dict[str, bool] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        assert hasattr(metafunc, "_arg2fixturedefs"), "pytest renamed Metafunc._arg2fixturedefs: see fixtures.py"
        self.answers[metafunc.function.__name__] = _overrides_model(metafunc)


def test_the_fixture_that_a_test_gets_is_the_last_of_its_name(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_given="def test_given(mnn_model):\n    pass\n",
        test_own="import pytest\n@pytest.fixture\ndef mnn_model():\n    pass\n\ndef test_own(mnn_model):\n    pass\n",
    )
    asked = Overrides()
    pytester.inline_run("--collect-only", plugins=[asked])
    assert asked.answers == {"test_given": False, "test_own": True}


def test_pytest_benchmark_registers_its_session(pytester: pytest.Pytester) -> None:
    session = benchmark_session(pytester.parseconfigure())
    for name in ("benchmarks", "options", "quiet", "disabled", "logger"):
        assert hasattr(session, name), f"pytest-benchmark's session has no {name} anymore: see benchmark.py"
    assert benchmark_session(pytester.parseconfigure("-p", "no:benchmark")) is None


class Check(pytest.Item):
    """An item that is no function."""

    fixturenames: tuple[str, ...]

    def runtest(self) -> None:
        """Nothing."""


class Collects:
    """Adds an item that asks for `benchmark`, and one that does not, and learns which pytest-benchmark leaves out."""

    def __init__(self) -> None:
        self.skipped: dict[str, bool] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        timed: Check = Check.from_parent(session, name="timed")
        timed.fixturenames = ("benchmark",)
        other: Check = Check.from_parent(session, name="other")
        items += [timed, other]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.skipped = {item.name: item.get_closest_marker("skip") is not None for item in session.items}


def test_pytest_benchmark_knows_benchmarks_by_their_fixture(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    collects = Collects()
    pytester.inline_run("--collect-only", "--benchmark-only", plugins=[collects])
    assert collects.skipped == {"timed": False, "other": True}
