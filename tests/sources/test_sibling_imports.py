"""Files in two folders that import modules of one name: the second must never get the first one's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_mnnquant.sources.data import load_data
from pytest_mnnquant.sources.metric import load_metric, metric_digest
from pytest_mnnquant.sources.sibling_imports import own_path
from pytest_mnnquant.sources.spec import DataError, SourceError, parse_spec
from pytest_mnnquant.sources.user_modules import import_file, load_module

_FOLDERS = ("sibling_a", "sibling_b")


@pytest.fixture(autouse=True)
def clean_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves no module and no folder of a test behind."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


IMPORTS = {
    "from": ("from blocks_s import WHO\n", "blocks_s.py"),
    "import": ("import blocks_s\nWHO = blocks_s.WHO\n", "blocks_s.py"),
    "package": ("from parts_s.blocks import WHO\n", "parts_s/blocks.py"),
    "module of a package": ("from parts_s import blocks\nWHO = blocks.WHO\n", "parts_s/blocks.py"),
    "by name": ("import importlib\nWHO = importlib.import_module('blocks_s').WHO\n", "blocks_s.py"),
    "later": ("def build():\n    from blocks_s import WHO\n    return WHO\nWHO = build()\n", "blocks_s.py"),
    "by a sibling": ("from layers_{0}_s import WHO\n", "blocks_s.py"),
    "own path": (
        "import os, sys\nsys.path.insert(0, os.path.dirname(__file__) + '/lib')\nfrom blocks_s import WHO\n",
        "lib/blocks_s.py",
    ),
}


@pytest.mark.parametrize("form", IMPORTS)
def test_the_second_of_two_siblings_with_one_name_is_refused(form: str, tmp_path: Path) -> None:
    text, sibling = IMPORTS[form]
    for folder in _FOLDERS:
        write(tmp_path / folder, {"net.py": text.format(folder), sibling: f"WHO = {folder!r}\n"})
        write(tmp_path / folder, {f"layers_{folder}_s.py": "from blocks_s import WHO\n"})
    assert import_file(tmp_path / "sibling_a/net.py").WHO == "sibling_a"
    with pytest.raises(SourceError) as error:
        import_file(tmp_path / "sibling_b/net.py")
    assert all(str(tmp_path / folder / sibling) in str(error.value) for folder in _FOLDERS)
    assert "\n" not in str(error.value)
    assert error.value.fix


def test_regular_packages_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in _FOLDERS:
        files = {
            "net.py": "from zoo_s.net import WHO\n",
            "zoo_s/__init__.py": "",
            "zoo_s/blocks.py": f"WHO = {folder!r}\n",
        }
        write(tmp_path / folder, {**files, "zoo_s/net.py": "from .blocks import WHO\n"})
    write(tmp_path / "sibling_b", {"zoo_s/__init__.py": "# another one\n"})
    assert import_file(tmp_path / "sibling_a/net.py").WHO == "sibling_a"
    with pytest.raises(SourceError, match="zoo_s"):
        import_file(tmp_path / "sibling_b/net.py")


def test_a_lazy_import_is_refused_before_it_runs(tmp_path: Path) -> None:
    """The first file imports its sibling only when it is called, after the second one was imported."""
    for folder in _FOLDERS:
        write(tmp_path / folder, {"net.py": IMPORTS["later"][0].replace("WHO = build()\n", "")})
        write(tmp_path / folder, {"blocks_s.py": f"WHO = {folder!r}\n"})
    first = import_file(tmp_path / "sibling_a/net.py")
    with pytest.raises(SourceError, match="blocks_s"):
        import_file(tmp_path / "sibling_b/net.py")
    assert first.build() == "sibling_a"


def test_data_metrics_and_modules_are_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in _FOLDERS:
        write(tmp_path / folder, {"net.py": "import blocks_s\ndef score(outputs, labels): return blocks_s.WHO\n"})
        write(tmp_path / folder, {"blocks_s.py": f"WHO = {folder!r}\n"})
    import_file(tmp_path / "sibling_a/net.py")
    with pytest.raises(DataError, match="blocks_s"):
        load_data("sibling_b/net.py:score", tmp_path, ("x",))
    for read in (load_metric, metric_digest):
        with pytest.raises(SourceError, match="blocks_s"):
            read("sibling_b/net.py:score", tmp_path)
    monkeypatch.chdir(tmp_path / "sibling_b")
    with pytest.raises(SourceError, match="blocks_s"):
        load_module(parse_spec("blocks_s:build", tmp_path))


def test_a_module_of_the_users_own_path_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"root/blocks_s.py": "WHO = 'root'\n"})
    write(tmp_path, {"sibling_b/blocks_s.py": "WHO = 'b'\n", "sibling_b/net.py": IMPORTS["from"][0]})
    monkeypatch.syspath_prepend(tmp_path / "root")
    assert import_file(tmp_path / "sibling_b/net.py").WHO == "root"


def test_other_siblings_of_one_name_are_not_refused(tmp_path: Path) -> None:
    """Modules that the second file does not import, and copies that do not depend on their folder."""
    for folder in _FOLDERS:
        write(tmp_path / folder, {"net.py": "import helpers_s, json\n", "blocks_s.py": f"WHO = {folder!r}\n"})
        write(tmp_path / folder, {"helpers_s.py": "def helps(): return 1\n", "json.py": "WHO = 'shadowed'\n"})
    write(tmp_path, {"sibling_a/net.py": "import blocks_s, helpers_s\n"})
    for folder in _FOLDERS:
        import_file(tmp_path / folder / "net.py")


def test_a_copy_that_reads_files_beside_itself_is_refused(tmp_path: Path) -> None:
    for folder in _FOLDERS:
        write(tmp_path / folder, {"net.py": "import blocks_s\n"})
        write(tmp_path / folder, {"blocks_s.py": "from pathlib import Path\nHERE = Path(__file__).parent\n"})
    import_file(tmp_path / "sibling_a/net.py")
    with pytest.raises(SourceError, match="blocks_s"):
        import_file(tmp_path / "sibling_b/net.py")


def test_other_processes_start_without_the_folders_of_imported_files(tmp_path: Path) -> None:
    write(tmp_path, {"sibling_a/net.py": ""})
    before = own_path()
    import_file(tmp_path / "sibling_a/net.py")
    assert str(tmp_path / "sibling_a") in sys.path
    assert own_path() == before
