"""Whether a file still has a callable, told from its text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_mnnquant.sources.presence import reason_missing
from tests.golden_text import check_golden

HERE = {
    "a function": "def build(): ...",
    "one in a branch": "if True:\n    def build(): ...\nelse:\n    build = None",
    "a coroutine": "async def build(): ...",
    "a class": "class build: ...",
    "a value": "build = make = print",
    "one of several values": "(a, *build) = [1, 2]",
    "a value in an expression": "print(build := 1)",
    "an import": "from .net import build",
    "an import by another name": "import torch.nn as build",
    "all of a module": "from net import *",
    "a global of a function": "def make():\n    global build\n    build = print\nmake()",
    "names made at run time": "globals()['build'] = print",
    "names made on demand": "def __getattr__(name): return print",
    "no Python": "def build(:",
    "no text": "\0",
}
GONE = {
    "nothing": "",
    "another name": "def make(): ...",
    "a method": "class Net:\n    def build(self): ...",
    "a name of a function": "def make():\n    build = print\n    return build",
    "a use": "def make(): ...\nif __name__ == '__main__':\n    build()",
    "a module within": "import torch.build",
    "a comment": "# def build(): ...",
}


@pytest.mark.parametrize("text", HERE.values(), ids=HERE)
def test_what_defines_it_or_may_is_there(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.py").write_text(text)
    assert reason_missing("net.py:build", tmp_path) == ""


@pytest.mark.parametrize("text", GONE.values(), ids=GONE)
def test_what_does_not_define_it_is_gone(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.py").write_text(text)
    check_golden("sources/a-callable-that-is-gone", str(reason_missing("net.py:build", tmp_path)))


def test_files_of_models_have_no_callable(tmp_path: Path) -> None:
    assert reason_missing("net.onnx", tmp_path) == ""


def test_a_module_is_found_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "someones_zoo"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "net.py").write_text("def build(): ...")
    assert reason_missing("someones_zoo.net:build", tmp_path) == ""  # It is not on the path: nothing is known.
    monkeypatch.chdir(tmp_path)
    assert reason_missing("someones_zoo.net:build", tmp_path) == ""
    told = "its source someones_zoo.net no longer defines make"
    assert reason_missing("someones_zoo.net:make", tmp_path) == told
    (package / "net.py").unlink()
    check_golden("sources/a-module-that-is-gone", str(reason_missing("someones_zoo.net:build", tmp_path)))
    assert "someones_zoo" not in sys.modules
    assert reason_missing("sys:build", tmp_path) == ""
