"""Runs a `.tflite` model with LiteRT, which is a package of its own or part of TensorFlow Lite's runtime."""

from __future__ import annotations

from typing import Any

from .batches import batches
from .output_files import OutputFiles


def run_tflite(job: dict[str, Any]) -> dict[str, Any]:
    """Write the outputs for all samples to `outputN.npy`. A batch size fixed by the model overrides the job's."""
    named = job.get("names", [])
    interpreter = new_interpreter(job["model"], bool(named))
    interpreter.allocate_tensors()
    inputs = {item["name"]: item for item in interpreter.get_input_details()}
    size = fixed_batch(inputs, job.get("axes", {}).get("inputs", {}))
    job = {**job, "batch": size or job["batch"], "fixed": size > 0}
    details = interpreter.get_tensor_details() if named else interpreter.get_output_details()
    results = {item["name"]: item["index"] for item in details if not named or item["name"] in named}
    files = OutputFiles(job)
    for batch in batches(job):
        feed(interpreter, inputs, batch)
        interpreter.invoke()
        files.add({name: interpreter.get_tensor(index) for name, index in results.items()})
    return {"outputs": files.close()}


def new_interpreter(path: str, preserve: bool) -> Any:
    """An interpreter of one thread; `preserve`: all tensors can be read after a run."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    return Interpreter(model_path=path, num_threads=1, experimental_preserve_all_tensors=preserve)


def fixed_batch(inputs: dict[str, Any], axes: dict[str, Any]) -> int:
    """The batch size that the model fixes; 0 if it takes any."""
    for name, item in inputs.items():
        axis, signature = axes.get(name, 0), [int(size) for size in item["shape_signature"]]
        if axis is not None and len(signature) > axis:
            return int(max(0, signature[axis]))
    return 0


def feed(interpreter: Any, inputs: dict[str, Any], batch: dict[str, Any]) -> None:
    """Give a batch as the inputs, of which open sizes are set first."""
    resized = False
    for name, item in inputs.items():
        if -1 in item["shape_signature"] and list(item["shape"]) != list(batch[name].shape):
            interpreter.resize_tensor_input(item["index"], batch[name].shape)
            item["shape"], resized = batch[name].shape, True
    if resized:
        interpreter.allocate_tensors()
    for name, item in inputs.items():
        interpreter.set_tensor(item["index"], batch[name].astype(item["dtype"], copy=False))
