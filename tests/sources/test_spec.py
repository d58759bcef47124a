"""What --mnn-model may name, and what is said about what it names wrongly."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.sources.spec import SourceError, call, describe, parse_spec
from pytest_mnnquant.sources.user_modules import import_file, load_module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("net.py", "export/net.onnx", "export/int8.mnn"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("def build(): return 42\nVALUE = 3\nclass Net: ...\ndef fails(): raise KeyError('k')\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "name", "path", "attribute"),
    [
        ("net.py:build", "net", "net.py", "build"),
        ("net.py:tiny", "net.tiny", "net.py", "tiny"),
        ("mine=net.py:tiny", "mine", "net.py", "tiny"),
        ("my-net.v2=export/net.onnx", "my-net.v2", "export/net.onnx", ""),
        ("export/net.onnx", "net", "export/net.onnx", ""),
        ("export/int8.mnn", "int8", "export/int8.mnn", ""),
    ],
)
def test_files_are_named_by_path_and_callable(folder: Path, text: str, name: str, path: str, attribute: str) -> None:
    spec = parse_spec(text, folder)
    assert (spec.text, spec.name, spec.path, spec.attribute, spec.module) == (text, name, folder / path, attribute, "")
    assert spec.is_python == bool(attribute)


@pytest.mark.parametrize(
    ("text", "name", "module", "attribute"),
    [
        ("zoo.nets:build", "nets", "zoo.nets", "build"),
        ("zoo:small", "zoo.small", "zoo", "small"),
        ("n=zoo.nets:build", "n", "zoo.nets", "build"),
    ],
)
def test_modules_are_named_with_dots(tmp_path: Path, text: str, name: str, module: str, attribute: str) -> None:
    spec = parse_spec(text, tmp_path)
    assert (spec.name, spec.module, spec.attribute, spec.path) == (name, module, attribute, None)


def test_absolute_paths_stay_as_they_are(folder: Path) -> None:
    assert parse_spec(f"{folder}/net.py:build", Path("/elsewhere")).path == folder / "net.py"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("none.onnx", "none.onnx: no such file"),
        ("none.py:build", "none.py: no such file"),
        ("export", "is not a model: give file.py:callable"),
        ("net.py", "is not a model"),
        ("net.py:", "is not a model"),
        ("net.py:3", "is not a model"),
        ("", "is not a model"),
        ("a/b:build", "neither a Python file nor a module name"),
        ("a-b.c:build", "neither a Python file nor a module name"),
        ("net.pt2", "no such file"),
        ("net.tflite", "no such file"),
    ],
)
def test_what_is_no_model_is_named_in_one_line(folder: Path, text: str, problem: str) -> None:
    with pytest.raises(SourceError) as error:
        parse_spec(text, folder)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=20))
def test_any_text_is_a_specification_or_a_source_error(text: str) -> None:
    try:
        spec = parse_spec(text, Path("/nowhere"))
    except SourceError:
        return
    assert spec.is_python
    assert spec.module


def test_a_file_is_imported_once_and_finds_its_siblings(tmp_path: Path) -> None:
    (tmp_path / "sibling_of_mine.py").write_text("WORD = 'hello'\n")
    (tmp_path / "main_of_mine.py").write_text("import sibling_of_mine\nSEEN = []\nword = sibling_of_mine.WORD\n")
    module = import_file(tmp_path / "main_of_mine.py")
    assert module.word == "hello"
    assert import_file(tmp_path / "main_of_mine.py") is module
    assert sys.path[0] != str(tmp_path)


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(f"WHO = {name!r}\n")
    assert [import_file(tmp_path / name / "net.py").WHO for name in ("a", "b")] == ["a", "b"]


def test_a_file_that_fails_to_import_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "broken_net.py"
    path.write_text("raise RuntimeError('first\\nsecond')\n")
    with pytest.raises(SourceError, match=r"importing it raised RuntimeError: first \(broken_net.py:1\)$"):
        load_module(parse_spec("broken_net.py:build", tmp_path))
    path.write_text("def build():\n    return 1  # longer, so that no stale bytecode is used\n")
    assert load_module(parse_spec("broken_net.py:build", tmp_path)).build() == 1


def test_a_module_that_is_not_there_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="ModuleNotFoundError: No module named 'no_such_package'"):
        load_module(parse_spec("no_such_package.nets:build", tmp_path))
    assert load_module(parse_spec("json.decoder:JSONDecoder", tmp_path)).__name__ == "json.decoder"


def test_the_callable_is_called(folder: Path) -> None:
    module = import_file(folder / "net.py")
    assert call("net.py:build", module, "build") == 42


@pytest.mark.parametrize(
    ("attribute", "problem"),
    [
        ("VALUE", "'VALUE'.* build, Net, fails"),
        ("built", "'built'"),
        ("fails", r"fails\(\) raised KeyError: 'k' \(net.py:4\)"),
    ],
)
def test_a_callable_that_is_missing_or_fails_is_a_source_error(folder: Path, attribute: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        call(f"net.py:{attribute}", import_file(folder / "net.py"), attribute)


def test_an_exception_without_text_is_described_by_its_type() -> None:
    assert describe(ValueError()) == "ValueError"
    assert describe(ValueError("a\nb")) == "ValueError: a"
