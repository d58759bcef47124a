"""Values of `--mnn-model`: `[NAME=]file.py:callable`, `[NAME=]package.module:callable`, or a model file."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pytest_mnnquant.llm.checkpoint import is_checkpoint
from pytest_mnnquant.llm.config import MODEL_CONFIG
from pytest_mnnquant.llm.folder import is_export
from pytest_mnnquant.llm.reference import SUFFIX as REFERENCE
from pytest_mnnquant.llm.reference import is_reference
from pytest_mnnquant.sources.code_digest import IMPORTED
from pytest_mnnquant.sources.user_code import UserCodeExit, contained, is_exit_call

#: Characters in the name of a model.
LONGEST_NAME: Final = 100
MODEL_SUFFIXES: Final = (".onnx", ".tflite", ".mnn")
#: Files with a PyTorch model that can be read without the code that made it.
TORCH_SUFFIXES: Final = (".pt2", ".pt", ".pth", ".torchscript")
# Files that hold weights only, or Python objects.
_WEIGHTS: Final = (".ckpt", ".safetensors", ".pkl", ".pickle", ".h5", ".pb")
# The prefix of module names of files that are imported by their path.
_CONTROLS: Final = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# Terminal colors, which PyTorch's exporter puts into its messages.
_COLOURS: Final = re.compile(r"\x1b\[[\d;]*m")


class SourceError(Exception):
    """A model or its data can't be used as given. The message is one line: the fault, and the fix if `fix` is empty.

    `operator` is the operator of the model that is to blame, if one is.
    """

    def __init__(self, message: str, fix: str = "", operator: str = "") -> None:
        super().__init__(message)
        self.fix = fix
        self.operator = operator


class DataError(SourceError):
    """Calibration or evaluation data can't be used as given, or do not fit the model."""


class QuantizedSource(SourceError):
    """The model given as the float source is already quantized."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed model specification. Either `path` (and `attribute` for Python files) or `module` is set."""

    text: str
    name: str
    path: Path | None = None
    module: str = ""
    attribute: str = ""

    @property
    def is_python(self) -> bool:
        """Whether the model comes from a Python callable, so needs PyTorch."""
        return bool(self.attribute)

    @property
    def is_torch_file(self) -> bool:
        """Whether the model is a PyTorch file (TorchScript or torch.export), so needs PyTorch."""
        return self.path is not None and not self.attribute and self.path.suffix in TORCH_SUFFIXES

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is the folder of a language model's checkpoint, or a reference in its place."""
        return self.path is not None and (self.path.is_dir() or self.path.suffix == REFERENCE)


def parse_spec(text: str, root: Path) -> Spec:
    """Parse one specification; relative paths start at `root`. Raises `SourceError`."""
    if not is_printable(text):
        raise SourceError(f"{text!r} contains characters that can't be printed, as ids and reports require; rename it")
    name, target = named_target(text, root)
    if len(name) > LONGEST_NAME:
        raise SourceError(f"{name[:LONGEST_NAME]}...: the name has {len(name)} characters, allowed: {LONGEST_NAME}")
    if target and (root / target).is_dir():
        return _checkpoint(text, name, root / target)
    if target.endswith((*MODEL_SUFFIXES, *TORCH_SUFFIXES, REFERENCE)):
        return _model_file(text, name, root, target)
    if target.endswith(_WEIGHTS) and (root / target).is_file():
        raise SourceError(
            f"{target}: {Path(target).suffix} files hold no network that MNN or PyTorch can run by itself; give "
            "file.py:callable, which builds the network and loads them, or x.onnx"
        )
    place, colon, attribute = target.rpartition(":")
    if not colon or not attribute.isidentifier():
        raise SourceError(
            f"{target!r} is not a model: give file.py:callable, package.module:callable, x.onnx, x.tflite, x.mnn, "
            "x.pt2 or x.pt (TorchScript)"
        )
    if place.endswith(".py"):
        path = root / place
        if not path.is_file():
            raise SourceError(f"{place}: {absence(path)}")
        return Spec(text, name or _default_name(path.stem, attribute), path, attribute=attribute)
    if not all(part.isidentifier() for part in place.split(".")):
        raise SourceError(f"{place!r} is neither a Python file nor a module name")
    return Spec(text, name or _default_name(place.rpartition(".")[2], attribute), None, place, attribute)


def is_printable(name: str) -> bool:
    """Whether a name can be part of ids and of XML: it has no control characters and no bytes that are not UTF-8."""
    return not _CONTROLS.search(name)


def named_target(text: str, root: Path) -> tuple[str, str]:
    """The name in `NAME=SPEC` and the rest; no name if the whole text names an existing file: paths may contain `=`."""
    match = re.match(r"([\w.\-]+)=(.+)$", text)
    if (
        match is None
        or is_existing(root / text)
        or (".py:" in text and is_existing(root / (text.rpartition(".py:")[0] + ".py")))
    ):
        return "", text
    return match[1], match[2]


def is_existing(path: Path) -> bool:
    """Whether a file exists; False for names that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # A name that is too long.
        return False


def _checkpoint(text: str, name: str, path: Path) -> Spec:
    """The folder of a language model. Raises `SourceError` for other folders."""
    if is_export(path):
        raise SourceError(
            f"{text}: the folder is an export; give it as --mnn-quantized, and its checkpoint as --mnn-model"
        )
    if not is_checkpoint(path):
        raise SourceError(
            f"{text!r} is not a model: give file.py:callable, package.module:callable, x.onnx, x.tflite, x.mnn or the "
            "folder of a language model's checkpoint, which has a config.json"
        )
    return Spec(text, name or path.resolve().name, path)


def absence(path: Path) -> str:
    """Why a path is not a file: a pipe, a device and a folder exist, but hold no whole file."""
    return "not a regular file" if path.exists() else "no such file"


def _reference(text: str, name: str, path: Path) -> Spec:
    """A stored reference. Raises `SourceError` for other files."""
    if not is_reference(path):
        problem = "is not the reference of a language model" if path.is_file() else absence(path)
        raise SourceError(f"{text}: {problem}; write one: pytest-mnnquant reference MODEL -o reference.npz")
    return Spec(text, name or path.stem, path)


def is_graph_of_export(path: Path) -> bool:
    """Whether a `.mnn` file is part of the export of a language model, which is judged as a whole."""
    return path.suffix == ".mnn" and (path.parent / MODEL_CONFIG).is_file()


def _model_file(text: str, name: str, root: Path, target: str) -> Spec:
    path = root / target
    if path.suffix == REFERENCE:
        return _reference(text, name, path)
    if not path.is_file():
        raise SourceError(f"{target}: {absence(path)}")
    if is_graph_of_export(path):
        raise SourceError(
            f"{target}: the file is part of the export of a language model: give the folder as --mnn-quantized, and "
            "its checkpoint as --mnn-model"
        )
    return Spec(text, name or path.stem, path)


def _default_name(stem: str, attribute: str) -> str:
    return stem if attribute == "build" else f"{stem}.{attribute}"


def call(text: str, module: ModuleType, attribute: str) -> Any:
    """Call `module.attribute()`. Raises `SourceError` that names what is missing or what was raised."""
    function: Callable[[], Any] | None = getattr(module, attribute, None)
    if not callable(function):
        known = ", ".join(name for name in vars(module) if callable(getattr(module, name)) and name[0] != "_")
        raise SourceError(
            f"{text}: no callable {attribute!r}; the module has: {known or 'none'}",
            f"define {attribute}() in the module, or name one of its callables instead of {attribute}",
        )
    try:
        with contained(), undisturbed_generators():
            return function()
    except Exception as error:
        place = str(module.__file__) if module.__name__.startswith(IMPORTED) else module.__name__
        raise SourceError(
            f"{text}: {attribute}() raised {describe(error)}", by_itself(place, f"{attribute}()")
        ) from error


def by_itself(place: str, call: str = "") -> str:
    """The fix that shows the whole traceback of a Python file or module: the command that imports or calls it."""
    folder, module = os.path.split(os.path.relpath(place).removesuffix(".py") if place.endswith(".py") else place)
    path = f"import sys; sys.path.append({json.dumps(folder, ensure_ascii=False)}); " if folder else ""
    code = f"{path}import {module}" + (f"; {module}.{call}" if call else "")
    return f"run it alone for the whole traceback:\npython -c {shlex.quote(code)}"


def describe(error: BaseException) -> str:
    """An exception in one line, with the place in the user's code where it was raised."""
    try:
        lines = _COLOURS.sub("", str(error)).strip().splitlines()
    except Exception:  # A `__str__` of the user's.
        lines = []
    name = "" if isinstance(error, UserCodeExit) else type(error).__name__
    text = ": ".join(part for part in (name, *lines[:1]) if part)
    trace = traceback.extract_tb((error if name else error.__cause__ or error).__traceback__)
    frames = [frame for frame in trace if not is_exit_call(frame.filename)]
    return text + (f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else "")


@contextlib.contextmanager
def undisturbed_generators() -> Iterator[None]:
    """Restore the random generators at the end: a user's function may seed them, which must not affect later tests."""
    python = random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    arrays = numpy.random.get_state() if numpy else None
    tensors = torch.random.get_rng_state() if torch else None
    try:
        yield
    finally:
        random.setstate(python)
        if numpy and arrays is not None:
            numpy.random.set_state(arrays)
        if torch and tensors is not None:
            torch.random.set_rng_state(tensors)


@contextlib.contextmanager
def seeded_generators(text: str) -> Iterator[None]:
    """Seed the random generators by a text, and restore them at the end: the same data come in each run and process."""
    seed = zlib.crc32(text.encode())
    with undisturbed_generators():
        random.seed(seed)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(seed)
        if torch := sys.modules.get("torch"):
            torch.random.default_generator.manual_seed(seed)
        yield
