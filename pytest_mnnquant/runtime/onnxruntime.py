"""Runs an `.onnx` on arrays with onnxruntime, where that is installed."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.runtime.inference import BATCH, Arrays
from pytest_mnnquant.runtime.jobs import run_job

_PROGRAM: Final = Path(__file__).parent / "programs/onnx_runner.py"


def has_onnxruntime() -> bool:
    """Whether onnxruntime is installed; it is not imported for that."""
    return importlib.util.find_spec("onnxruntime") is not None


def run_onnx(path: Path, inputs: Arrays, *, timeout: float, batched: bool = True) -> dict[str, npt.NDArray[Any]]:
    """Outputs by name, samples on the first axis. `batched=False` feeds the samples one by one.

    Raises `NativeFailure` when onnxruntime can't read or run the model, crashes or takes longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="mnnquant-") as name:
        folder, files = Path(name), {}
        for number, (key, array) in enumerate(inputs.items()):
            files[key] = str(folder / f"input{number}.npy")
            np.save(files[key], array)
        result = run_job(
            "onnx",
            folder,
            timeout=timeout,
            what=f"running {path.name}",
            who="onnxruntime",
            program=_PROGRAM,
            model=str(path.resolve()),
            inputs=files,
            batch=BATCH if batched else 1,
        )
        return {output: np.load(folder / f"output{number}.npy") for number, output in enumerate(result["outputs"])}
