"""Runs the models that MNN converts on arrays, with the runtime of their format, if it is installed."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.runtime.inference import Arrays, batch_size
from pytest_mnnquant.runtime.job_results import run_or_reuse
from pytest_mnnquant.runtime.jobs import Job, run_job
from pytest_mnnquant.runtime.mapped_arrays import load_array
from pytest_mnnquant.runtime.options import RunOptions


@dataclass(frozen=True, slots=True)
class SourceRuntime:
    """A runtime of models in the format `kind`: the `task` of the program that uses it, and its `packages`.

    Any of the packages is enough; `extra` is the extra of this package that installs one.
    """

    name: str
    kind: str
    task: str
    packages: tuple[str, ...]
    extra: str

    @property
    def is_installed(self) -> bool:
        """Whether one of its packages is installed; does not import it."""
        return any(importlib.util.find_spec(package) is not None for package in self.packages)

    @property
    def not_installed(self) -> str:
        """Why it can't run models, with the command that installs it."""
        return (
            f"{self.name} is not installed to run the {self.kind} model (pip install 'pytest-mnnquant[{self.extra}]')"
        )

    @property
    def _installation(self) -> list[Any]:
        """What changes with the installed version: the file of each package, and its time."""
        specs = map(importlib.util.find_spec, self.packages)
        files = [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]
        return [[str(file.parent), file.stat().st_mtime_ns] for file in files]

    def run(
        self,
        path: Path,
        inputs: Arrays,
        options: RunOptions,
        names: Sequence[str] = (),
        tensor_files: Sequence[Path] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name, samples on the first axis. The runtime uses one thread and has no memory modes.

        `names` are tensors to return in place of the outputs; those that the model does not have are missing.
        `tensor_files` are the files beside the model that hold its tensors; if they are known, the result is stored.

        Raises `NativeFailure` if the runtime can't read or run the model, crashes or takes too long.
        """
        with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name:
            folder, files = Path(name), {}
            for number, (key, array) in enumerate(inputs.items()):
                files[key] = str(folder / f"input{number}.npy")
                np.save(files[key], array)
            beside = [str(file.resolve()) for file in tensor_files or ()]
            arguments: dict[str, Any] = {
                "model": str(path.resolve()),
                "tensor_files": beside,
                "installed": self._installation,
                "inputs": files,
                "names": list(names),
                "batch": batch_size(options, inputs),
                "axes": options.axes.as_job,
            }
            job = Job(self.task, f"running {path.name}", options.timeout, arguments, who=self.name)
            ran = run_job(job, folder) if tensor_files is None else run_or_reuse(job, folder, run_job)
            outputs = ran.values["outputs"]
            return {output: load_array(folder / f"output{number}.npy") for number, output in enumerate(outputs)}


ONNXRUNTIME: Final = SourceRuntime("onnxruntime", "ONNX", "onnx", ("onnxruntime",), "onnx")
LITERT: Final = SourceRuntime("LiteRT", "TFLite", "tflite", ("ai_edge_litert", "tflite_runtime"), "tflite")
#: The runtimes by the suffix of the files that they run.
RUNTIMES: Final[Mapping[str, SourceRuntime]] = {".onnx": ONNXRUNTIME, ".tflite": LITERT}
