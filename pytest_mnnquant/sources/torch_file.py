"""PyTorch models in files: `.pt2` (torch.export) and TorchScript (`.pt`). No file is unpickled as Python code.

TorchScript is read by PyTorch's own reader, which creates tensors and its script objects only. A `.pt2` holds JSON, and
tensors that torch.export.load would unpickle: each of them must first be readable with `weights_only=True`. It may hold
compiled code too, which torch.export.load runs: only the entries that torch.export.save writes are accepted.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
# The entries that torch.export.save writes, since PyTorch 2.8 and before. Others may be code, as in data/aotinductor/.
# PyTorch looks names up regardless of case, so that the case must be right.
_WRITTEN: Final = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/[^/]+|\.format_version|\.storage_alignment"
    r"|models/[^/]+\.json|data/sample_inputs/[^/]+\.pt|extra/.+"
    r"|data/weights/(weight_[0-9]+|[^/]+_weights_config\.json|[^/]+\.pt)"
    r"|data/constants/((tensor|custom_obj|opaque_obj)_[0-9]+|[^/]+_constants_config\.json|[^/]+\.pt)"
)
_WRITTEN_BEFORE: Final = re.compile(
    r"version|extra_files/.+|serialized_exported_program\.json|serialized_(state_dict|constants)\.(json|pt)"
    r"|serialized_example_inputs\.pt"
)


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
            entries = _entries(path, archive)
            entries.require_written()
            for name in entries.pickled():
                _require_tensors(path, name, entries.read(name))
    except SourceError:
        raise
    except Exception as error:  # Of any kind, in zipfile, json and PyTorch's reader.
        raise SourceError(f"{path}: not an exported program: {describe(error)}", _EXPORT) from None
    try:
        with suppress_output():
            return torch.export.load(str(path))
    except Exception as error:
        raise SourceError(f"{path}: torch.export.load raised {describe(error)}", _EXPORT) from error


@dataclass(frozen=True, slots=True)
class _Entries:
    """The entries of a `.pt2`, as a reader of torch.export.load sees them."""

    names: list[str]
    read: Callable[[str], bytes]
    written: re.Pattern[str]

    def require_written(self) -> None:
        """Raise `ValueError` for an entry that torch.export.save does not write, and for two of the same name."""
        for name in self.names:
            if not self.written.fullmatch(name):
                raise ValueError(f"it holds {name}, which torch.export.save does not write")
        if len({name.lower() for name in self.names}) < len(self.names):
            raise ValueError("it holds two entries of the same name")

    def pickled(self) -> Iterator[str]:
        """The entries that torch.export.load unpickles."""
        for name in self.names:
            folder, _, file = name.rpartition("/")
            if file.endswith(".pt") or file.startswith(_OBJECTS) or file in _OLD:
                yield name
            elif file.endswith("_config.json"):
                payloads = json.loads(self.read(name))["config"].values()
                yield from (f"{folder}/{payload['path_name']}" for payload in payloads if payload.get("use_pickle"))


def _entries(path: Path, archive: zipfile.ZipFile) -> _Entries:
    """The entries as PyTorch's reader sees them; if PyTorch's reader refuses the file, as zipfile does.

    torch.export.load uses both readers, in this order. Raises `ValueError` if they do not see the same entries.
    """
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names = reader.get_all_records()
    except RuntimeError:
        return _Entries(archive.namelist(), archive.read, _WRITTEN_BEFORE)
    if sorted(name.partition("/")[2] for name in archive.namelist()) != sorted(names):
        raise ValueError("it has two lists of entries")
    return _Entries(names, reader.get_record, _WRITTEN)


def _require_tensors(path: Path, name: str, content: bytes) -> None:
    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise SourceError(
            f"{path}: {name.rpartition('/')[2]} holds more than tensors, and is not unpickled: {describe(error)}", _SAFE
        ) from None
