"""Runs an `.onnx` model with onnxruntime, the only task that requires more than MNN and numpy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .batches import batches
from .output_files import OutputFiles

# ONNX Runtime from 1.29 on sends what it runs to Microsoft, and keeps an id of the machine in the home folder, unless
# these are set before it is loaded; the second name is that of later versions.
SILENT = {"ORT_DISABLE_TELEMETRY": "1", "ORT_TELEMETRY_DISABLED": "1"}
TYPES = {
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
    """Write the outputs for all samples to `outputN.npy`. A batch size fixed by the model overrides the job's."""
    os.environ.update(SILENT)
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: the log's last lines must not be warnings
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    inner = inner_tensors(job["model"], job.get("names", []))
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(Path(job["model"]).parent)
    )
    model = with_outputs(job["model"], inner) if inner else job["model"]
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    types = {item.name: TYPES.get(item.type, "float32") for item in session.get_inputs()}
    names = [item.name for item in session.get_outputs() if not job.get("names") or item.name in job["names"]]
    axes = job.get("axes", {}).get("inputs", {})
    places = ((item.shape, axes.get(item.name, 0)) for item in session.get_inputs())
    fixed = next((shape[axis] for shape, axis in places if axis is not None and len(shape) > axis), None)
    is_fixed = isinstance(fixed, int) and fixed > 0
    job = {**job, "batch": fixed if is_fixed else job["batch"], "fixed": is_fixed}
    files = OutputFiles(job)
    for batch in batches(job):
        results = session.run(names, {name: batch[name].astype(kind, copy=False) for name, kind in types.items()})
        files.add({name: results[number] for number, name in enumerate(names)})
    return {"outputs": files.close()}


def inner_tensors(path: str, names: list[str]) -> list[str]:
    """Those of the names that operators of an `.onnx` give to tensors that are not outputs of the model."""
    import onnx

    if not names:
        return []
    graph = onnx.load(path, load_external_data=False).graph
    made = {name for node in graph.node for name in node.output} - {item.name for item in graph.output}
    return [name for name in names if name in made]


def with_outputs(path: str, names: list[str]) -> bytes:
    """The content of an `.onnx` file with more outputs. External data stay in their files."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return bytes(model.SerializeToString())
