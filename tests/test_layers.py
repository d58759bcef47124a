"""Each test has its layers, and unit tests are held to theirs."""

from __future__ import annotations

import ast
import importlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TESTS
from tests.layers import (
    FORBIDDEN,
    LAYERS,
    NEEDS,
    ImportGuard,
    layers_of_path,
    layers_of_test,
    may_hold_unit_tests,
)


def test_the_table_names_what_is_there() -> None:
    assert [path for path in NEEDS if not (TESTS / path).exists()] == []
    assert {layer for layers in NEEDS.values() for layer in layers} <= {*LAYERS}


@pytest.mark.parametrize(
    ("path", "layers"),
    [
        ("checks/coverage/test_check.py", {"unit"}),
        ("checks/weights/test_check.py", {"torch"}),
        ("faults/test_corpus.py", {"mnn", "torch", "pytester", "slow"}),
        ("faults/test_accuracy_lost.py", {"mnn", "torch", "pytester"}),
        ("docs/test_chinese.py", {"unit"}),
    ],
)
def test_the_longest_path_decides(path: str, layers: set[str]) -> None:
    assert {*layers_of_path(path)} == layers


@pytest.mark.parametrize(
    ("fixtures", "markers", "layers"),
    [
        ([], [], {"unit"}),
        (["tmp_path"], ["parametrize"], {"unit"}),
        (["digits", "workshop"], [], {"mnn", "torch"}),
        (["pytester"], ["slow"], {"pytester", "slow"}),
    ],
)
def test_fixtures_and_markers_add_layers(fixtures: list[str], markers: list[str], layers: set[str]) -> None:
    assert layers_of_test("findings/test_finding.py", fixtures, markers) == layers


def test_folders_that_may_hold_unit_tests_are_collected() -> None:
    assert may_hold_unit_tests("docs")
    assert may_hold_unit_tests("checks")
    assert not may_hold_unit_tests("docs/test_pages.py")
    assert not may_hold_unit_tests("zoo")


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_import_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    for module in [module for module in sys.modules if module.partition(".")[0] in FORBIDDEN]:
        monkeypatch.delitem(sys.modules, module)
    ImportGuard().install()
    with pytest.raises(ModuleNotFoundError, match=name):
        importlib.import_module(name)


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run(["true"], check=True),
        lambda: os.system("true"),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: multiprocessing.get_context("spawn").Process(target=len).start(),
    ],
    ids=["subprocess", "system", "posix_spawn", "multiprocessing"],
)
def test_a_child_process_of_a_unit_test_is_refused(start: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match="child process"):
        start()


def test_the_common_conftest_imports_no_model_code() -> None:
    tree = ast.parse(Path(TESTS / "conftest.py").read_text(encoding="utf-8"))
    imported = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    heavy = ("pytest_mnnquant.quantize", "pytest_mnnquant.runtime", "pytest_mnnquant.targets", "tests.workshop")
    assert [name for name in imported if name.startswith(heavy)] == []
