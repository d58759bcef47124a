"""Without a model the plugin does nothing: it imports none of the large packages, adds no test, changes no status."""

from __future__ import annotations

import json

import pytest

from tests.plugin.conftest import Files, Run

LARGE = ("numpy", "torch", "MNN", "onnx", "onnxruntime")
LISTS = """
import json, sys

def pytest_unconfigure():
    open("modules.json", "w").write(json.dumps(sorted(sys.modules)))
"""
# These import numpy themselves, or are told to by the tests.
QUIET = ("-p", "no:hypothesispytest", "-p", "no:benchmark", "-p", "no:cov", "-p", "no:xdist")


def imported(pytester: pytest.Pytester, *args: str) -> set[str]:
    """The modules that a run in a process of its own has imported by its end."""
    (pytester.path / "lists.py").write_text(LISTS)
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess(*QUIET, "-p", "lists", *args)
    assert result.ret == 0, result.stdout.str()
    return set(json.loads((pytester.path / "modules.json").read_text()))


@pytest.mark.parametrize("args", [("test_own.py",), ("test_own.py::test_own",), ("--help",), ("--markers",), ("--co",)])
def test_nothing_large_is_imported(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    pytester.makepyfile(test_own="def test_own():\n    pass")
    modules = imported(pytester, *args)
    assert "pytest_mnnquant.plugin.hooks" in modules
    assert not modules & set(LARGE)
    loaded = {name for name in modules if name.startswith("pytest_mnnquant.") and "." in name.partition(".")[2]}
    of_markers = {f"pytest_mnnquant.findings.{name}" for name in ("catalogue", "check", "effects", "rule")}
    assert loaded - (of_markers if "--markers" in args else set()) == {
        "pytest_mnnquant.config.given",
        "pytest_mnnquant.config.option",
        "pytest_mnnquant.config.options",
        "pytest_mnnquant.findings.defaults",
        "pytest_mnnquant.findings.value_text",
        "pytest_mnnquant.plugin.fixtures",
        "pytest_mnnquant.plugin.hooks",
        "pytest_mnnquant.plugin.records",
    }


def test_torch_is_not_imported_for_files(pytester: pytest.Pytester, files: Files) -> None:
    args = [f"--mnn-model={files.float}", f"--mnn-quantized={files.int8}", "-k", "coverage"]
    assert not imported(pytester, *args) & {"torch", "onnx", "MNN"}


def test_tests_run_as_ever(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_own():\n    pass")
    found = run("test_own.py")
    assert (found.status, found.passed) == (0, {"test_own.py::test_own"})
    assert "mnnquant:" not in found.text
    assert "MNN quantization" not in found.text
    assert run("-k", "nothing").status == pytest.ExitCode.NO_TESTS_COLLECTED


def test_help_lists_every_option_once(run: Run) -> None:
    from pytest_mnnquant.config.options import OPTIONS

    text = run("--help").text
    assert "quantized MNN models" in text
    for option in OPTIONS:
        assert f" {option.flag}" in text
        assert (f" {option.key} (" in text) == option.ini
