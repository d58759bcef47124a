"""The program of the child process: runs one job with MNN and writes its result to files.

    python runner.py JOB.json

Needs nothing but MNN and numpy, and imports nothing from this package, so it can be copied anywhere. A job names its
`task` (convert, run, observe, time); the result goes to `result.json` and `*.npy` beside the job. Whatever MNN prints
goes to stdout and is not trusted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

PROTOCOL = 1


def convert(job: dict[str, Any]) -> dict[str, Any]:
    """Run MNN's converter. Its return value is always True, so none is reported."""
    import _tools

    _tools.mnnconvert(["mnnconvert", *job["arguments"]])
    return {}


class Session:
    """A model in memory, with its inputs fed as NCHW (or as the model declares them)."""

    def __init__(self, job: dict[str, Any], path: str) -> None:
        import MNN

        self.mnn = MNN
        self.net = MNN.Interpreter(path)
        config = {"backend": "CPU", "numThread": job.get("threads", 1), "memory": int(job.get("memory", 0))}
        self.session = self.net.createSession(config)

    def feed(self, arrays: dict[str, Any]) -> None:
        """Copy one batch in, resizing the session where the shape is new."""
        inputs = self.net.getSessionInputAll(self.session)
        missing = set(inputs) - set(arrays)
        if missing:
            raise ValueError(f"no data for input {sorted(missing)[0]!r}")
        if any(tuple(tensor.getShape()) != arrays[name].shape for name, tensor in inputs.items()):
            for name, tensor in inputs.items():
                self.net.resizeTensor(tensor, arrays[name].shape)
            self.net.resizeSession(self.session)
        for name, tensor in inputs.items():
            array = arrays[name]
            kinds = {"f": self.mnn.Halide_Type_Float, "i": self.mnn.Halide_Type_Int, "u": self.mnn.Halide_Type_Uint8}
            layout = self.mnn.Tensor_DimensionType_Caffe
            if tensor.getDimensionType() == self.mnn.Tensor_DimensionType_Tensorflow:
                layout = self.mnn.Tensor_DimensionType_Tensorflow
            tensor.copyFrom(self.mnn.Tensor(array.shape, kinds[array.dtype.kind], array, layout))

    def host(self, tensor: Any, integer: bool = False) -> Any:
        """A tensor's values, dequantized, in NCHW order. The one right way: other getters return int8 bytes."""
        import numpy as np

        shape = tensor.getShape()
        kind = self.mnn.Halide_Type_Int if integer else self.mnn.Halide_Type_Float
        empty = np.zeros(shape, np.int32 if integer else np.float32)
        copy = self.mnn.Tensor(shape, kind, empty, self.mnn.Tensor_DimensionType_Caffe)
        tensor.copyToHostTensor(copy)
        return np.array(copy.getNumpyData()).reshape(shape).copy()

    def run(self) -> None:
        """Run once; MNN reports failure by a status that Python would ignore."""
        status = self.net.runSession(self.session)
        if status not in (0, None):
            raise RuntimeError(f"MNN's runSession failed with status {status}")

    def outputs(self, integers: set[str]) -> dict[str, Any]:
        """All outputs of the last run; those named in `integers` are integers, which a tensor itself does not tell."""
        tensors = self.net.getSessionOutputAll(self.session)
        return {name: self.host(tensor, name in integers) for name, tensor in tensors.items()}


def batches(job: dict[str, Any]) -> Any:
    """Yield the inputs in batches of `job["batch"]` samples, each {input name: array}."""
    import numpy as np

    arrays = {name: np.load(file, mmap_mode="r") for name, file in job["inputs"].items()}
    samples, size = next(iter(arrays.values())).shape[0], job["batch"]
    for start in range(0, samples, size):
        yield {name: np.ascontiguousarray(array[start : start + size]) for name, array in arrays.items()}


def integer_outputs(path: str) -> set[str]:
    """The names of a model's integer tensors, from MNN's shape inference; a session's tensors hide their type."""
    import MNN

    try:
        known = MNN.expr.load_as_dict(path)
        return {name for name, value in known.items() if value.dtype in (MNN.expr.int, MNN.expr.int64)}
    except Exception:  # What can't be inferred is taken for float, as nearly all outputs are.
        return set()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Outputs of a model on all samples, and the type MNN gives each operator as it runs (the op trace)."""
    import numpy as np

    if job.get("engine") == "module":
        return run_module(job)
    session, parts, trace = Session(job, job["model"]), {}, []  # type: Session, dict[str, list[Any]], list[Any]

    integers = integer_outputs(job["model"])

    def before(_tensors: Any, _info: Any) -> bool:
        return True

    def after(_tensors: Any, info: Any) -> bool:
        trace.append([info.getName(), info.getType()])
        return True

    for number, batch in enumerate(batches(job)):
        session.feed(batch)
        if number == 0:
            session.net.runSessionWithCallBackInfo(session.session, before, after)
        else:
            session.run()
        for name, array in session.outputs(integers).items():
            parts.setdefault(name, []).append(array)
    for number, arrays in enumerate(parts.values()):
        np.save(f"output{number}.npy", np.concatenate([np.atleast_1d(array) for array in arrays]))
    memory = session.net.getSessionInfo(session.session, 0)
    return {"outputs": list(parts), "trace": trace, "memory_mb": memory}


def run_module(job: dict[str, Any]) -> dict[str, Any]:
    """The same through MNN's Module API, for models with While or If bodies. It has no op trace."""
    import MNN
    import numpy as np

    expr = MNN.expr
    net = MNN.nn.load_module_from_file(job["model"], list(job["inputs"]), job["outputs"])
    parts: list[list[Any]] = [[] for _ in job["outputs"]]
    kinds = {"f": expr.float, "i": expr.int, "u": expr.uint8}
    for batch in batches(job):
        held = [expr.const(array, list(array.shape), expr.NCHW, kinds[array.dtype.kind]) for array in batch.values()]
        results = net.forward(held)
        for part, result in zip(parts, results, strict=True):
            part.append(np.array(result.read()).copy())  # read() is a view that dies with `result`
    for number, arrays in enumerate(parts):
        np.save(f"output{number}.npy", np.concatenate(arrays))
    return {"outputs": job["outputs"], "trace": None, "memory_mb": None}


def observe(job: dict[str, Any]) -> dict[str, Any]:
    """First input and first output of the named operators: their values (`probe`) or their range in each batch."""
    import numpy as np

    session, wanted = Session(job, job["model"]), {name: number for number, name in enumerate(job["ops"])}
    probe = bool(job.get("probe"))
    ranges: list[Any] = []
    for batch in batches(job):
        session.feed(batch)
        extremes = np.full((len(job["ops"]), 2, 2), np.nan)

        def see(tensors: Any, info: Any, side: int, extremes: Any = extremes) -> bool:
            number = wanted.get(info.getName())
            if number is not None and tensors:
                values = session.host(tensors[0])
                extremes[number, side] = values.min(), values.max()
                if probe:
                    np.save(f"tensor{number}_{side}.npy", values.reshape(-1))
            return True

        session.net.runSessionWithCallBackInfo(
            session.session, lambda tensors, info: see(tensors, info, 0), lambda tensors, info: see(tensors, info, 1)
        )
        ranges.append(extremes)
        if probe:
            break
    np.save("ranges.npy", np.stack(ranges))
    return {}


def paired_times(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds an inference of two models takes, run in turn: A B, B A, A B, ... on the first batch."""
    first = next(iter(batches(job)))
    sessions = [Session(job, path) for path in job["models"]]
    for session in sessions:
        session.feed(first)

    def timed(session: Session, loops: int) -> float:
        start = time.perf_counter()
        for _ in range(loops):
            session.net.runSession(session.session)
        return (time.perf_counter() - start) / loops

    for session in sessions:  # Warm up, and let a failing session say so.
        for _ in range(job["warmup"]):
            session.run()
    # A sample shorter than about 0.2 ms measures the clock and the interpreter, not the model.
    loops = max(1, round(2e-4 / max(1e-7, min(timed(session, 5) for session in sessions))))
    times: list[list[float]] = [[], []]
    end = time.monotonic() + job["budget"]
    while len(times[0]) < job["pairs"] and time.monotonic() < end:
        order = (0, 1) if len(times[0]) % 2 == 0 else (1, 0)
        for which in order:
            times[which].append(timed(sessions[which], loops))
    return {"times": times, "loops": loops}


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, however that happens (a CI job that is cut off)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    except (OSError, AttributeError):
        pass  # Not Linux: the parent's own clean-up has to do.


TASKS = {"convert": convert, "run": run, "observe": observe, "time": paired_times}


def main() -> None:
    """Run the job named on the command line. The result file appears whole or not at all."""
    job_file = Path(sys.argv[1])
    die_with_parent()
    sys.path.pop(0)  # The folder of this script must not shadow the standard library.
    job = json.loads(job_file.read_text(encoding="utf-8"))
    if job["protocol"] != PROTOCOL:
        raise SystemExit(f"this runner speaks protocol {PROTOCOL}, the job {job['protocol']}")
    os.chdir(job_file.parent)
    try:
        result = TASKS[job["task"]](job)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.flush()
    unfinished = Path("result.json.part")
    unfinished.write_text(json.dumps(result), encoding="utf-8")
    unfinished.replace("result.json")
    os._exit(0)  # MNN's destructors may crash after the work is done; the result is already on disk.


if __name__ == "__main__":
    main()
