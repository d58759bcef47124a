"""Runs a pipeline of one's own: `file.py:callable(model, calibration, mode, outdir)`, in a child process.

The callable gets a PyTorch model in train or eval mode (`mode` says which), the calibration data, and a folder:

    for inputs in calibration:      # tuples of tensors in the order of the model's inputs, batches of 32 (or 1)
        model(*inputs)

and returns the path of the file it made, a list of paths, or a mapping of `quantized`, `onnx` and `params` to paths;
or None, for what it left in the folder. Relative paths start there, and it is the working directory meanwhile. An
`.onnx` with its params file is converted as users of mnncompress do it. What it did is watched (`pipeline_monitor.py`).

Packages that phone home when they are imported are kept from it in this process; the console scripts `mnnconvert` and
`mnnquant` are other processes and can't be: call `_tools.mnnconvert([...])` in their place.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_mnnquant.findings.defaults import EXPORTER
from pytest_mnnquant.measurements.calibration import Watched
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.params import BadParams, read_params
from pytest_mnnquant.quantize.pipeline_child import KINDS
from pytest_mnnquant.runtime.command import Command
from pytest_mnnquant.runtime.jobs import Job, run_job, tail
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import SourceError, Spec, describe, parse_spec

if TYPE_CHECKING:
    import torch

#: The pipeline that ships with this package: the original PyTorch quantizer.
MNNCOMPRESS: Final = "mnncompress"
_SHIPPED: Final = "pytest_mnnquant.quantize.mnncompress_pipeline"
_CHILD: Final = Command(
    Path(__file__).with_name("pipeline_child.py"),
    # mnncompress needs the old implementation; all others do with it.
    environment={"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
)
_SUFFIXES: Final = {".mnn": "quantized", ".onnx": "onnx", ".bin": "params", ".json": "params"}
_COMPANIONS: Final = {".mnn": ".weight", ".onnx": ".data"}  # weights in a file beside the model
_CLOCK: Final = 1.0  # seconds by which the times of files and of the clock may differ


@dataclass(frozen=True)
class PipelineOutput:
    """What a pipeline made, and what it did. Every file is inside its folder."""

    quantized: Path | None
    onnx: Path | None
    params: Path | None
    watched: Watched
    log: str


def run_pipeline(
    text: str,
    root: Path,
    spec: Spec,
    network: torch.nn.Module,
    data: Dataset,
    mode: str,
    outdir: Path,
    options: RunOptions,
    exporter: str = EXPORTER,
) -> PipelineOutput:
    """Run the pipeline that `text` names (or `mnncompress`) on a model like `network`, which is not touched.

    Where `spec` names a callable the model is built by it again, and gets the weights of `network`; else (a fixture
    returned it) it is pickled. Raises `SourceError` for what the pipeline did wrong, `NativeFailure` when its process
    crashed or had no end within `options.timeout` seconds.
    """
    import torch

    pipeline = parse_spec(f"{_SHIPPED}:{exporter}" if text == MNNCOMPRESS else text, root)
    pipeline = dataclasses.replace(pipeline, text=text)
    if not pipeline.is_python:
        raise SourceError(f"{text}: not a pipeline; give file.py:callable")
    outdir = outdir.resolve()
    outdir.mkdir(parents=True, exist_ok=True)
    before, started = _stamps(outdir), time.time()
    with tempfile.TemporaryDirectory(prefix="pipeline-") as name:
        folder = Path(name)
        weights = folder / "weights.pt"
        try:
            torch.save(network.state_dict() if spec.is_python else network, weights)
        except Exception as error:
            raise SourceError(
                f"{spec.name}: the model can't be handed to the process of the pipeline: {describe(error)}; name a "
                "function that builds it instead: --mnn-model=file.py:callable"
            ) from error
        arguments = {
            "pipeline": _fields(pipeline),
            "source": _fields(spec) if spec.is_python else None,
            "name": spec.name,
            "weights": str(weights),
            "inputs": _save(data, folder),
            "origin": data.origin,
            "mode": mode,
            "batched": options.batched,
            "alone": data.alone,
            "outdir": str(outdir),
            "cwd": str(Path.cwd()),
            "path": [str(Path(place).resolve()) for place in [*sys.path, "."]],
        }
        job = Job("pipeline", f"{text} in {mode} mode", options.timeout, arguments, who="the pipeline")
        result = run_job(job, folder, _CHILD).values
        log = tail(folder / "log.txt")
    if "raised" in result:
        raise SourceError(result["raised"])
    files = _files(result["returned"], outdir, before, started, text)
    moved = {key: tuple(pair) for key, pair in result["watched"].pop("moved").items()}
    return PipelineOutput(**files, watched=Watched(**result["watched"], moved=moved), log=log)


def _fields(spec: Spec) -> dict[str, Any]:
    path = str(spec.path.resolve()) if spec.path else None
    return {**dataclasses.asdict(spec), "path": path}


def _save(data: Dataset, folder: Path) -> dict[str, str]:
    files = {}
    for number, (name, array) in enumerate(data.inputs.items()):
        files[name] = str(folder / f"input{number}.npy")
        np.save(files[name], array)
    return files


# What it made -------------------------------------------------------------------------------------------------------


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file below a folder, with what changes when it is written."""
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in folder.rglob("*") if file.is_file()}


def _files(
    returned: Mapping[str, str] | Sequence[str] | None,
    outdir: Path,
    before: dict[Path, tuple[int, int]],
    started: float,
    text: str,
) -> dict[str, Path | None]:
    """The files that a pipeline made, by kind. Raises `SourceError`: missing, old, ambiguous or not enough."""
    now = _stamps(outdir)
    fresh = [file for file, stamp in sorted(now.items()) if before.get(file) != stamp]
    if returned is None:
        found = _kinds([file for file in fresh if file.suffix in _SUFFIXES], text, "left")
    elif isinstance(returned, Mapping):
        found = {kind: outdir / path for kind, path in returned.items()}
    else:
        paths = [outdir / path for path in returned]
        strange = next((path for path in paths if path.suffix not in _SUFFIXES), None)
        if strange is not None:
            known = ", ".join(_SUFFIXES)
            raise SourceError(f"{text}: it returned {strange.name}, which is none of {known}; return a mapping")
        found = _kinds(paths, text, "returned")
    for path in found.values():
        if not path.is_file():
            raise SourceError(f"{text}: it returned {path}, but there is no such file")
    taken = {kind: _inside(path, outdir, fresh, started, text) for kind, path in found.items()}
    if "quantized" not in taken and not {"onnx", "params"} <= set(taken):
        had = ", ".join(path.name for path in taken.values())
        raise SourceError(
            f"{text}: it made {had or 'no file in outdir'}; a quantized .mnn is needed, or an .onnx and its params file"
        )
    return {kind: taken.get(kind) for kind in KINDS}


def _kinds(paths: Sequence[Path], text: str, verb: str) -> dict[str, Path]:
    """One file of each kind, by its suffix; of several .bin and .json files the one that is a params file."""
    found: dict[str, Path] = {}
    for suffixes in ((".mnn",), (".onnx",), (".bin", ".json")):
        alike = [path for path in paths if path.suffix in suffixes]
        if len(alike) > 1 and suffixes[-1] == ".json":
            alike = [path for path in alike if _is_params(path)]
        if len(alike) > 1:
            names = ", ".join(path.name for path in alike)
            kind = _SUFFIXES[suffixes[0]]
            raise SourceError(f"{text}: it {verb} {names}: return a mapping that tells which is {kind!r}")
        found.update({_SUFFIXES[path.suffix]: path for path in alike})
    return found


def _is_params(path: Path) -> bool:
    try:
        return bool(read_params(path).layers)
    except (BadParams, OSError):
        return False


def _inside(path: Path, outdir: Path, fresh: Sequence[Path], started: float, text: str) -> Path:
    """The file, new, in the pipeline's folder: copied there from elsewhere, with the weights beside it."""
    path = path.resolve()
    own = path.is_relative_to(outdir)
    if path not in fresh and (own or path.stat().st_mtime < started - _CLOCK):
        raise SourceError(f"{text}: it returned {path}, which is older than this run: it wrote no new file there")
    if own:
        return path
    ending = _COMPANIONS.get(path.suffix, "")
    for source in (path, path.with_name(path.name + ending)):
        if source.is_file():
            shutil.copy2(source, outdir / source.name)
    return outdir / path.name
