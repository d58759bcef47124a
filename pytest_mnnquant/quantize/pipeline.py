"""Runs a custom pipeline, `file.py:callable(model, calibration, mode, outdir)`, in a child process.

The callable gets a PyTorch model in train or eval mode (`mode`), the calibration data, and a folder:

    for inputs in calibration:      # tuples of tensors in the order of the model's inputs, batches of 32 (or 1)
        model(*inputs)

It returns the path of the file it made, a list of paths, or a mapping of `quantized`, `onnx` and `params` to paths; or
None for the files that it left in the folder. Relative paths start in the folder, which is the working directory. An
`.onnx` with its params file is converted as users of mnncompress do. `pipeline_monitor.py` observes the pipeline.

Packages that report to a server when they are imported can't do so in this process. The console scripts `mnnconvert`
and `mnnquant` run in other processes, which are not covered: call `_tools.mnnconvert([...])` instead.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.findings.defaults import EXPORTER
from pytest_mnnquant.measurements.calibration import Observations
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.pipeline_files import file_stamps, find_files
from pytest_mnnquant.runtime.command import Command
from pytest_mnnquant.runtime.jobs import Job, run_job, tail
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.package_files import package_folder
from pytest_mnnquant.sources.sibling_imports import own_path
from pytest_mnnquant.sources.spec import SourceError, Spec, describe, parse_spec

if TYPE_CHECKING:
    import torch

#: The pipeline that ships with this package: the original PyTorch quantizer.
MNNCOMPRESS: Final = "mnncompress"
_SHIPPED: Final = "pytest_mnnquant.quantize.mnncompress_pipeline"
#: The process in which custom pipelines run.
CHILD: Final = Command(
    package_folder() / "quantize" / "pipeline_child.py",
    # mnncompress needs the old implementation, and all other packages support it.
    environment={
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
        **dict.fromkeys(("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED", "HF_HUB_DISABLE_TELEMETRY"), "1"),
    },
)


@dataclass(frozen=True)
class PipelineOutput:
    """The files that a pipeline made, all inside its folder, and what it did."""

    quantized: Path | None
    onnx: Path | None
    params: Path | None
    observations: Observations
    log: str


@dataclass(frozen=True)
class PipelineInput:
    """The input of a pipeline: a copy of `network`, in train or eval mode, and calibration data.

    If `spec` names a callable, the pipeline's process builds the model with it again and loads the weights of
    `network`; else (a fixture returned the model) the model is pickled.
    """

    spec: Spec
    network: torch.nn.Module
    data: Dataset
    mode: str


def run_pipeline(
    text: str, root: Path, given: PipelineInput, outdir: Path, options: RunOptions, exporter: str = EXPORTER
) -> PipelineOutput:
    """Run the pipeline that `text` names (or `mnncompress`); the network itself does not change.

    Raises `SourceError` for an error of the pipeline, `NativeFailure` if its process crashed or did not end within
    `options.timeout` seconds.
    """
    pipeline = parse_spec(f"{_SHIPPED}:{exporter}" if text == MNNCOMPRESS else text, root)
    pipeline = dataclasses.replace(pipeline, text=text)
    if not pipeline.is_python:
        raise SourceError(f"{text}: not a pipeline; give file.py:callable")
    outdir = outdir.resolve()
    outdir.mkdir(parents=True, exist_ok=True)
    before, started = file_stamps(outdir), time.time()
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name:
        folder = Path(name)
        arguments = {
            "pipeline": _fields(pipeline),
            "batched": options.batched,
            "outdir": str(outdir),
            "cwd": str(Path.cwd()),
            "path": [str(Path(place).resolve()) for place in [*own_path(), "."]],
            **_save_input(given, folder),
        }
        job = Job("pipeline", f"{text} in {given.mode} mode", options.timeout, arguments, who="the pipeline")
        result = run_job(job, folder, CHILD).values
        log = tail(folder / "log.txt")
    if "raised" in result:
        raise SourceError(result["raised"])
    files = find_files(result["returned"], outdir, before, started, text)
    moved = {key: tuple(pair) for key, pair in result["watched"].pop("moved").items()}
    return PipelineOutput(**files, observations=Observations(**result["watched"], moved=moved), log=log)


def _save_input(given: PipelineInput, folder: Path) -> dict[str, Any]:
    """Write the model and the data for the pipeline's process, and return the arguments of its job."""
    import torch

    weights, spec = folder / "weights.pt", given.spec
    try:
        torch.save(given.network.state_dict() if spec.is_python else given.network, weights)
    except Exception as error:
        raise SourceError(
            f"{spec.name}: the model can't be sent to the pipeline's process: {describe(error)}; name a function that "
            "builds it: --mnn-model=file.py:callable"
        ) from error
    return {
        "source": _fields(spec) if spec.is_python else None,
        "name": spec.name,
        "weights": str(weights),
        "inputs": _save_arrays(given.data, folder),
        "origin": given.data.origin,
        "alone": given.data.alone,
        "axes": dict(given.data.axes),
        "mode": given.mode,
    }


def _fields(spec: Spec) -> dict[str, Any]:
    path = str(spec.path.resolve()) if spec.path else None
    return {**dataclasses.asdict(spec), "path": path}


def _save_arrays(data: Dataset, folder: Path) -> dict[str, str]:
    files = {}
    for number, (name, array) in enumerate(data.inputs.items()):
        files[name] = str(folder / f"input{number}.npy")
        np.save(files[name], array)
    return files
