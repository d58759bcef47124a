"""How long a variant takes beside another model, what it holds in memory, and where its time goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.measurements.timing import MEMORY_MODES, PRECISIONS, MemoryUse, OpTime, PairedTimes, TimingSettings
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime.host import host_facts, host_told
from pytest_mnnquant.runtime.inference import Arrays, Job, renamed, traced
from pytest_mnnquant.runtime.jobs import run_job
from pytest_mnnquant.runtime.options import RunOptions, Send

_PROGRAM: Final = Path(__file__).parent / "programs/timer.py"


def paired_times(
    reference: Model,
    candidate: Model,
    inputs: Arrays,
    *,
    timeout: float,
    settings: TimingSettings | None = None,
    send: Send = run_job,
) -> PairedTimes:
    """Time both models side by side in one process, interleaved. Raises `NativeFailure`."""
    how = settings or TimingSettings()
    with Job(reference, _repeated(inputs, how.batch), RunOptions(timeout + how.budget, send=send)) as job:
        result = job.run(
            "paired",
            what=f"timing {candidate.path.name}",
            program=_PROGRAM,
            models=[str(reference.path.resolve()), str(candidate.path.resolve())],
            names=[renamed(reference, model) for model in (reference, candidate)],
            warmup=10,
            round=max(1, how.pairs // 5),
            memory=how.memory_mode,
            **{**dataclasses.asdict(how), "precision": PRECISIONS[how.precision]},
        )
        log = job.folder / "log.txt"
        host = host_told(result["place"], log) if "place" in result else host_facts(log)
    first, second = (np.array(times) for times in result["times"])
    return PairedTimes(first, second, result["loops"], tuple(result["starts"]), how, host)


def memory_use(model: Model, inputs: Arrays, options: RunOptions) -> Mapping[int, MemoryUse]:
    """What a model holds in each of `MEMORY_MODES`, to be loaded and run on one sample. Raises `NativeFailure`."""
    what = f"measuring the memory of {model.path.name}"
    how = {"threads": options.threads, "modes": list(MEMORY_MODES)}
    result = _alone("memory", what, model, _repeated(inputs, 1), options, **how)
    return {int(mode): MemoryUse(**figures) for mode, figures in result["modes"].items()}


def op_times(
    model: Model, inputs: Arrays, *, timeout: float, settings: TimingSettings, send: Send = run_job
) -> tuple[OpTime, ...]:
    """What each operator takes, in the order in which they run. Raises `NativeFailure`."""
    what = f"timing the operators of {model.path.name}"
    how = {"memory": settings.memory_mode, "precision": PRECISIONS[settings.precision], "threads": settings.threads}
    options = RunOptions(timeout, send=send)
    result = _alone("profile", what, model, _repeated(inputs, settings.batch), options, runs=30, **how)
    found = ((traced(name, kind), seconds) for name, kind, seconds in result["ops"])
    return tuple(OpTime(op.name, op.kind, seconds, op.int8) for op, seconds in found)


def _repeated(inputs: Arrays, batch: int) -> Arrays:
    """A batch of copies of the first sample."""
    return {name: np.repeat(array[:1], batch, axis=0) for name, array in inputs.items()}


def _alone(task: str, what: str, model: Model, batch: Arrays, options: RunOptions, **job: Any) -> dict[str, Any]:
    """A task of the timer on one model and one batch."""
    path, size = str(model.path.resolve()), len(next(iter(batch.values())))
    with Job(model, batch, options) as child:
        return child.run(task, what=what, program=_PROGRAM, model=path, batch=size, **job)
