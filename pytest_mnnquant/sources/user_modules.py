"""Imports the Python files and modules that users name: models, data, metrics and pipelines."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from pytest_mnnquant.sources.code_digest import IMPORTED
from pytest_mnnquant.sources.sibling_imports import Clash, append_folder, clash_of_file, clash_of_module, note_folders
from pytest_mnnquant.sources.spec import SourceError, Spec, by_itself, describe
from pytest_mnnquant.sources.user_code import contained


def load_module(spec: Spec) -> ModuleType:
    """Import the module that holds the callable. Raises `SourceError` with the first line of the error."""
    try:
        if spec.path is None:
            folder = str(Path.cwd())
            _refuse(spec.module, clash_of_module(spec.module, [folder]))
            append_folder(folder)  # As with `python -m pytest`.
            with contained():
                return importlib.import_module(spec.module)
        return import_file(spec.path)
    except SourceError:
        raise
    except Exception as error:
        place = str(spec.path or spec.module)
        raise SourceError(f"{spec.text}: importing it raised {describe(error)}", by_itself(place)) from error


def import_file(path: Path) -> ModuleType:
    """Import a Python file by its path, once; its folder is appended to `sys.path`, so that it can import siblings.

    Raises `SourceError` if Python would take a sibling from the folder of another file, and what the file raises.
    """
    name = IMPORTED + re.sub(r"\W", "_", str(path.resolve()))
    if name in sys.modules:
        return sys.modules[name]
    folder = str(path.resolve().parent)
    _refuse(str(path), clash_of_file(path, [folder]))
    append_folder(folder)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = list(sys.path)
    try:
        with contained():
            spec.loader.exec_module(module)
        if added := note_folders(before):
            _refuse(str(path), clash_of_file(path, [folder, *added]))
    except BaseException:
        note_folders(before)
        del sys.modules[name]
        raise
    return module


def _refuse(importer: str, clash: Clash | None) -> None:
    """Raise `SourceError` for a module that would come from the folder of another model."""
    if clash is not None:
        raise SourceError(
            f"{importer}: imports {clash.name} from {clash.wanted}, but Python takes {clash.loaded}, from "
            "the folder of another file of this run: it loads one module of a name",
            "rename one of the two files, give the model as package.module:callable, or judge it in a separate run",
        )
