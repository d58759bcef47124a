"""The program of a child process: runs an `.onnx` model with onnxruntime.

    python onnx_runner.py JOB.json

Needs nothing but onnxruntime and numpy; a job is read and answered as by `runner.py`, which lies beside it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_spec = importlib.util.spec_from_file_location("runner", Path(__file__).with_name("runner.py"))
assert _spec is not None
assert _spec.loader is not None
runner: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runner)

KINDS = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(bool)": "bool",
}


def run_onnx(job: dict[str, Any]) -> dict[str, Any]:
    """Outputs of a model on all samples, to `outputN.npy`. A batch that the model fixes goes before the job's."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: the log's last lines must not be warnings
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    kinds = {item.name: KINDS.get(item.type, "float32") for item in session.get_inputs()}
    names = [item.name for item in session.get_outputs()]
    fixed = next((item.shape[0] for item in session.get_inputs() if item.shape), None)
    size = fixed if isinstance(fixed, int) and fixed > 0 else job["batch"]
    parts: list[list[Any]] = []
    for batch in runner.batches({**job, "batch": size}):
        results = session.run(names, {name: batch[name].astype(kind, copy=False) for name, kind in kinds.items()})
        parts.append([np.atleast_1d(result) for result in results])
    for number, column in enumerate(zip(*parts, strict=True)):
        np.save(f"output{number}.npy", np.concatenate(column))
    return {"outputs": names}


if __name__ == "__main__":
    runner.TASKS["onnx"] = run_onnx
    runner.main()
