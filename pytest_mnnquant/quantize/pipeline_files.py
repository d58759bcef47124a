"""The files that a pipeline made: the paths that it returned, or the files in its folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.params import BadParams, read_params
from pytest_mnnquant.quantize.pipeline_child import KINDS
from pytest_mnnquant.sources.spec import SourceError

_SUFFIXES: Final = {".mnn": "quantized", ".onnx": "onnx", ".bin": "params", ".json": "params"}
_COMPANIONS: Final = {".mnn": ".weight", ".onnx": ".data"}  # weights in a second file in the same folder
_CLOCK: Final = 1.0  # seconds by which file times and the clock may differ


def file_stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """The modification time and size of each file below a folder."""
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in folder.rglob("*") if file.is_file()}


def find_files(
    returned: Mapping[str, str] | Sequence[str] | None,
    outdir: Path,
    before: dict[Path, tuple[int, int]],
    started: float,
    text: str,
) -> dict[str, Path | None]:
    """The files that a pipeline made, by kind. Raises `SourceError` if they are missing, old, ambiguous or too few."""
    now = file_stamps(outdir)
    fresh = [file for file, stamp in sorted(now.items()) if before.get(file) != stamp]
    if returned is None:
        files = _kinds([file for file in fresh if file.suffix in _SUFFIXES], text, "left")
    elif isinstance(returned, Mapping):
        files = {kind: outdir / path for kind, path in returned.items()}
    else:
        paths = [outdir / path for path in returned]
        strange = next((path for path in paths if path.suffix not in _SUFFIXES), None)
        if strange is not None:
            known = ", ".join(_SUFFIXES)
            raise SourceError(f"{text}: returned {strange.name}, expected one of {known}; return a mapping")
        files = _kinds(paths, text, "returned")
    for path in files.values():
        if not path.is_file():
            raise SourceError(f"{text}: returned {path}, which does not exist")
    taken = {kind: _inside(path, outdir, fresh, started, text) for kind, path in files.items()}
    if "quantized" not in taken and not {"onnx", "params"} <= set(taken):
        had = ", ".join(path.name for path in taken.values())
        raise SourceError(
            f"{text}: made {had or 'no file in outdir'}, expected a quantized .mnn, or an .onnx and its params file"
        )
    return {kind: taken.get(kind) for kind in KINDS}


def _kinds(paths: Sequence[Path], text: str, verb: str) -> dict[str, Path]:
    """One file of each kind, by its suffix; of several .bin and .json files the one that is a params file."""
    files: dict[str, Path] = {}
    for suffixes in ((".mnn",), (".onnx",), (".bin", ".json")):
        candidates = [path for path in paths if path.suffix in suffixes]
        if len(candidates) > 1 and suffixes[-1] == ".json":
            candidates = [path for path in candidates if _is_params(path)]
        if len(candidates) > 1:
            names = ", ".join(path.name for path in candidates)
            kind = _SUFFIXES[suffixes[0]]
            raise SourceError(f"{text}: {verb} {names}; return a mapping that names one of them as {kind!r}")
        files.update({_SUFFIXES[path.suffix]: path for path in candidates})
    return files


def _is_params(path: Path) -> bool:
    try:
        return bool(read_params(path).layers)
    except (BadParams, OSError):
        return False


def _inside(path: Path, outdir: Path, fresh: Sequence[Path], started: float, text: str) -> Path:
    """The new file in the pipeline's folder; a file outside is copied into it, with its file of weights."""
    path = path.resolve()
    is_inside = path.is_relative_to(outdir)
    if path not in fresh and (is_inside or path.stat().st_mtime < started - _CLOCK):
        raise SourceError(f"{text}: returned {path}, which is older than this run: the pipeline did not write it")
    if is_inside:
        return path
    ending = _COMPANIONS.get(path.suffix, "")
    for source in (path, path.with_name(path.name + ending)):
        if source.is_file():
            shutil.copy2(source, outdir / source.name)
    return outdir / path.name
