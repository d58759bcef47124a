"""Checks whether a target works: runs a small model on it and compares the output with the known one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import FailureKind, Job, run_job
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.targets.target import NO_TIME, NO_TRACE, UNSAID, Target, TargetFailure


def run_self_test(target: Target, timeout: float) -> Iterator[str]:
    """The features that work, one per line. Raises `NativeFailure` if a model of one operator fails on the target."""
    values = np.arange(4, dtype=np.float32).reshape(1, 4)
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name:
        run_job(Job("example", "making a model of one operator", timeout), Path(name))
        started = time.monotonic()
        ran = run(read_model(Path(name) / "example.mnn"), {"x": values}, RunOptions(timeout, send=target.send))
    took = time.monotonic() - started
    if not np.array_equal(ran.outputs["y"], 2 * values):
        reason = f"{target.name}: a model of one operator gives a wrong output on the target"
        raise TargetFailure(target.name, FailureKind.BAD_OUTPUT, reason)
    machine = ran.machine
    assert machine is not None  # Every target reports what it is.
    host, mnn, kernels = machine.host, machine.mnn, ", ".join(machine.host.used) or "none"
    yield f"{target.name}: {host.machine}, Python {machine.python}, MNN {mnn or 'of unknown version'}"
    yield f"  accuracy: yes (a model of one operator took {took:.1f} s; numpy {machine.numpy})"
    yield f"  execution: {'yes' if machine.traces_int8 and ran.trace else f'no, {NO_TRACE.format(mnn=mnn)}'}"
    yield f"  instructions of MNN's int8 kernels: {kernels}"
    yield f"  latency, memory: {'yes' if target.is_device else f'no, {NO_TIME if target.emulated else UNSAID}'}"
