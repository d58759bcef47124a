"""The protocol of the programs: reads a job from a folder, runs it, and writes the result to the folder.

A job names its `task`, one of `TASKS` below, and its files by paths relative to the job's folder. The result is written
to `result.json` and `*.npy` in the same folder. A failure is the result's `error`. If the job lists the `sent` files
with their SHA-256, these must have arrived, and the result lists the written `files` and the facts of the `machine`.
MNN's own output goes to stdout and is not trusted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from . import (
    converter,
    images,
    inference,
    language_model,
    language_speed,
    layerwise,
    onnx_runner,
    operator_outputs,
    source_model,
    tensor_statistics,
    tflite_runner,
    timer,
)
from .failures import described
from .machine import check_mnn, machine_facts
from .process import die_with_parent, given_parent, peak_mb
from .transfer import check_arrived, written_files

PROTOCOL = 1
TASKS = {
    "convert": converter.convert,
    "quantize": converter.quantize,
    "images": images.images,
    "run": inference.run,
    "example": inference.write_example,
    "onnx": onnx_runner.run_onnx,
    "tflite": tflite_runner.run_tflite,
    "observe": tensor_statistics.observe,
    "histograms": tensor_statistics.histograms,
    "losses": tensor_statistics.losses,
    "operators": operator_outputs.operators,
    "splice_outputs": operator_outputs.splice_outputs,
    "layers": layerwise.layers,
    "paired": timer.paired,
    "memory": timer.memory,
    "profile": timer.profile,
    "language_logits": language_model.logits,
    "language_text": language_model.generate,
    "language_speeds": language_speed.compare,
    "source_logits": source_model.logits,
}


def work(job_file: Path, parent: int) -> None:
    """Run a job and end the process, which `parent` has started (0: unknown). The result file is written atomically."""
    die_with_parent(parent)
    job = json.loads(job_file.read_text(encoding="utf-8"))
    if job["protocol"] != PROTOCOL:
        raise SystemExit(f"this runner speaks protocol {PROTOCOL}, the job {job['protocol']}")
    os.chdir(job_file.parent)
    try:
        result = {**result_of(job), "peak_mb": peak_mb()}
    except Exception as error:
        result = {"error": described(error)}
    sys.stdout.flush()
    unfinished = Path("result.json.part")
    unfinished.write_text(json.dumps(result), encoding="utf-8")
    unfinished.replace("result.json")
    os._exit(0)  # MNN's destructors may crash afterwards; the result is already on disk.


def result_of(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in the working directory."""
    sent = job.get("sent")
    if sent is None:
        return TASKS[job["task"]](job)
    check_mnn(job["mnn"])
    check_arrived(sent)
    result = TASKS[job["task"]](job)
    return {**result, "files": written_files(sent), "machine": machine_facts()}


def serve() -> None:
    """Run the jobs that stdin names, one file per line, each in a fork; write the exit status of each to stdout.

    A job's output goes to `log.txt` in its folder, after the output of loading MNN.
    """
    import ctypes
    import hashlib
    import tempfile

    answers, (printed, name) = os.fdopen(os.dup(1), "w"), tempfile.mkstemp()
    Path(name).unlink()
    for stream in (1, 2):
        os.dup2(printed, stream)
    die_with_parent(given_parent())
    process = os.getpid()
    try:
        import MNN
        import numpy

        _ = (ctypes, hashlib, MNN, numpy)  # Loaded once, for all forks.
    except Exception as error:  # Each job that needs them reports it.
        print(f"{type(error).__name__}: {error}", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            work_in_fork(Path(line.rstrip("\n")), printed, process)
        _, status = os.waitpid(child, 0)
        answers.write(f"{-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)}\n")
        answers.flush()


def work_in_fork(job_file: Path, printed: int, parent: int) -> None:
    """Run a job and end the process; its log begins with the content of the file `printed`."""
    try:
        log = os.open(str(job_file.with_name("log.txt")), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(log, os.pread(printed, 1 << 16, 0))
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # Stdin names the jobs that follow.
        work(job_file, parent)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(1)


def main() -> None:
    """Run the job named on the command line, or with `--serve` those named on stdin."""
    if sys.argv[1] == "--serve":
        serve()
    else:
        work(Path(sys.argv[1]), given_parent())
