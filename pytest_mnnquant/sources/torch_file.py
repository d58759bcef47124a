"""PyTorch models in files: `.pt2` (torch.export) and TorchScript (`.pt`). No file is unpickled as Python code.

TorchScript is read by PyTorch's own reader, which creates tensors and its script objects only. A `.pt2` holds JSON, and
tensors that torch.export.load would unpickle: each of them must first be readable with `weights_only=True`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.sources.spec import SourceError, describe
from pytest_mnnquant.sources.torch_module import import_torch

if TYPE_CHECKING:
    import torch

_CALLABLE: Final = "give file.py:callable, which builds the network, loads the file and returns the network"
_EXPORT: Final = "write it again: torch.export.save(torch.export.export(network.eval(), example), 'x.pt2')"
_SAFE: Final = "write it again without custom objects, or give file.py:callable, which loads it"
# What torch.export unpickles as Python objects.
_OBJECTS: Final = ("opaque_obj_", "custom_obj_")
_OLD: Final = ("serialized_state_dict.json", "serialized_constants.json")


def load_torch_file(path: Path) -> Any:
    """The TorchScript module or the module of the exported program in a file. Raises `SourceError`."""
    import_torch(str(path))
    names = _names(path)
    if path.suffix == ".pt2" or any("/models/" in name or name == "serialized_exported_program.json" for name in names):
        return _load_exported(path)
    if not any("/code/" in name for name in names):
        raise SourceError(f"{path}: the file holds pickled weights or a pickled module, not a network", _CALLABLE)
    import torch

    from pytest_mnnquant.sources.pytorch import suppress_output

    try:
        with suppress_output():
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise SourceError(f"{path}: torch.jit.load raised {describe(error)}", _CALLABLE) from error


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        what = "not an exported program" if path.suffix == ".pt2" else "not a TorchScript module"
        raise SourceError(f"{path}: {what}, or incomplete", _EXPORT if path.suffix == ".pt2" else _CALLABLE) from None


def _load_exported(path: Path) -> torch.export.ExportedProgram:
    import torch

    from pytest_mnnquant.sources.pytorch import suppress_output

    try:
        with zipfile.ZipFile(path) as archive:
            if len(set(archive.namelist())) < len(archive.namelist()):
                raise ValueError("it holds two entries of the same name")
            for name in _pickled(archive):
                _require_tensors(path, name, archive.read(name))
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: not an exported program: {describe(error)}", _EXPORT) from None
    try:
        with suppress_output():
            return torch.export.load(str(path))
    except Exception as error:
        raise SourceError(f"{path}: torch.export.load raised {describe(error)}", _EXPORT) from error


def _pickled(archive: zipfile.ZipFile) -> Iterator[str]:
    """The entries of a `.pt2` that torch.export.load unpickles."""
    for name in archive.namelist():
        folder, _, file = name.rpartition("/")
        if file.endswith(".pt") or file.startswith(_OBJECTS) or file in _OLD:
            yield name
        elif file.endswith("_config.json"):
            entries = json.loads(archive.read(name))["config"].values()
            yield from (f"{folder}/{entry['path_name']}" for entry in entries if entry.get("use_pickle"))


def _require_tensors(path: Path, name: str, content: bytes) -> None:
    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise SourceError(
            f"{path}: {name.rpartition('/')[2]} holds more than tensors, and is not unpickled: {describe(error)}", _SAFE
        ) from None
