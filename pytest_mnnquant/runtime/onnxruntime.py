"""Runs an `.onnx` on arrays with onnxruntime, if it is installed."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.runtime.inference import Arrays, batch_size
from pytest_mnnquant.runtime.jobs import Job, run_job
from pytest_mnnquant.runtime.options import RunOptions


def has_onnxruntime() -> bool:
    """Whether onnxruntime is installed; does not import it."""
    return importlib.util.find_spec("onnxruntime") is not None


def run_onnx(path: Path, inputs: Arrays, options: RunOptions, names: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """Outputs by name, samples on the first axis. onnxruntime uses one thread and has no memory modes.

    `names` are tensors to return in place of the outputs; those that the model does not have are missing.

    Raises `NativeFailure` if onnxruntime can't read or run the model, crashes or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name:
        folder, files = Path(name), {}
        for number, (key, array) in enumerate(inputs.items()):
            files[key] = str(folder / f"input{number}.npy")
            np.save(files[key], array)
        shared = {"batch": batch_size(options), "axes": options.axes.as_job}
        arguments = {"model": str(path.resolve()), "inputs": files, "names": list(names), **shared}
        job = Job("onnx", f"running {path.name}", options.timeout, arguments, who="onnxruntime")
        outputs = run_job(job, folder).values["outputs"]
        return {output: np.load(folder / f"output{number}.npy") for number, output in enumerate(outputs)}
