"""The checks of a model are tests like any other: listed, chosen, stopped, run again."""

from __future__ import annotations

import pytest

from pytest_mnnquant.findings.catalogue import CHECK_NAMES
from tests.golden_text import check_golden
from tests.plugin.conftest import HEAD, Files, Run

MODEL = "--mnn-model=net.py:build"
W8 = "--mnn-recipe=w8"
USERS = "def test_one():\n    assert 1\n\ndef test_two():\n    assert 0"


def test_the_suite_can_be_listed(run: Run) -> None:
    found = run(MODEL, "--mnn-mode=eval", W8, "--mnn-recipe=int8", "--co", "-q")
    expected = [f"net.py:build::{variant}::{check}" for variant in ("w8", "int8-eval") for check in CHECK_NAMES]
    assert [line for line in found.lines if line.startswith("net.py:build::")] == expected
    assert found.status == 0
    assert "22 tests collected" in found.text


def test_each_check_says_which_model_it_belongs_to(run: Run) -> None:
    found = run("--mnn-model=my=net.py:build", W8, "-k", "size or params", "-v", "-rs")
    assert "my::w8::size PASSED" in found.text
    assert "SKIPPED [1] my::w8::params:1:" in found.text


def test_names_and_markers_choose_checks(run: Run) -> None:
    both = [MODEL, W8, "--mnn-recipe=fp16", "--strict-markers"]
    assert run(*both, "-k", "fp16 and (size or coverage)").passed == {"fp16::size", "fp16::coverage"}
    assert run(*both, "-m", "mnn_size").passed == {"w8::size", "fp16::size"}
    assert run(*both, "-m", "mnn_size or mnn_bundle", "-k", "w8").passed == {"w8::size", "w8::bundle"}
    assert run(*both, "-k", "nothing").status == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_first_failure_can_end_the_run(run: Run, files: Files) -> None:
    usual = ["--mnn-model", files.float, W8, "--mnn-quantized", files.float, "-k", "coverage or execution or size"]
    assert len(run(*usual).failed) == 3
    found = run(*usual, "-x")
    assert (found.status, found.failed) == (1, {"w8::coverage"})
    assert len(found.items) == 1
    check_golden("plugin-reports/tests-that-did-not-run", found.starting("WARNING: "))


def test_the_last_failures_can_be_run_again(run: Run) -> None:
    usual = [MODEL, W8, "--mnn-min-size-ratio=9", "-k", "coverage or size or bundle"]
    assert run(*usual).failed == {"w8::size"}
    again = run(*usual, "--lf")
    assert (again.status, set(again.items)) == (1, {"net.py:build::w8::size"})
    mended = run(MODEL, W8, "-k", "coverage or size or bundle", "--lf")
    assert (mended.status, set(mended.items)) == (0, {"net.py:build::w8::size"})
    assert len(run(MODEL, W8, "-k", "coverage or size or bundle", "--ff").items) == 3


def test_a_model_alone_runs_no_other_tests(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_users=USERS)
    found = run(MODEL, W8, "-k", "size or one or two")
    assert (found.status, found.passed) == (0, {"w8::size"})


def test_a_model_and_a_path_run_both(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_users=USERS)
    found = run(MODEL, W8, "-k", "size or one or two", "test_users.py")
    assert found.status == 1
    assert found.passed == {"w8::size", "test_users.py::test_one"}
    assert found.failed == {"test_users.py::test_two"}
    assert set(run(MODEL, W8, "test_users.py::test_one", "-k", "one").items) == {"test_users.py::test_one"}


def test_a_failure_tells_what_and_why_and_what_to_do(run: Run, files: Files) -> None:
    found = run("--mnn-model", files.float, W8, "--mnn-quantized", files.float, "-k", "coverage")
    assert found.roots() == [("MNQ401", HEAD)]
    check_golden("plugin-reports/a-failure", found.failure("float w8"), model=files.float)
    assert found.lines.count("float") == 1  # the head of the table
    check_golden("plugin-reports/verdict-of-a-failure", found.starting("float: FAILED"))
    assert "FAILED: coverage" in found.text


def test_the_summary_has_a_row_for_each_variant(run: Run) -> None:
    found = run(MODEL, W8, "--mnn-recipe=w4", "-k", "size or coverage or accuracy or params")
    table = found.lines[found.lines.index("net") + 1 :][:4]
    assert [line.split()[0] for line in table] == ["variant", "w8", "w4", "net:"]
    assert table[0].split() == ["variant", "size", "coverage", "accuracy", "verdict"]
    assert all(" 100.0% " in line and line.endswith(" ok") for line in table[1:3])
    said = (line for line in found.lines if line.startswith(("net: ok", "  params skipped")))
    check_golden("plugin-reports/verdict-and-skips", "\n".join(said))
