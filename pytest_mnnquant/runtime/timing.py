"""How long a variant takes beside another model, what it holds in memory, and where its time goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime.host import Host, host_facts, host_told
from pytest_mnnquant.runtime.inference import Arrays, Job, Send, renamed, traced
from pytest_mnnquant.runtime.jobs import run_job
from pytest_mnnquant.statistics.paired_ratio import FEWEST, paired_ratio

_PROGRAM: Final = Path(__file__).parent / "programs/timer.py"
#: MNN's numbers for `precision`; it ignores texts that it does not know.
PRECISIONS: Final = {"normal": 0, "high": 1, "low": 2}
#: MNN's memory modes: normal, and low, which keeps weights of 8 bits and fewer as they are. It ignores texts.
NORMAL, LOW = 0, 2
MEMORY_MODES: Final = (NORMAL, LOW)


@dataclass(frozen=True, slots=True)
class TimingSettings:
    """How models are run to be timed; part of the record.

    `batch` copies of the first sample make one inference. At least `pairs` pairs are run, then more until half of the
    95 % interval is at most `width` of the ratio and the interval does not hold `limit`; within `budget` seconds and
    `most` pairs.
    """

    threads: int = 1
    precision: str = "normal"
    memory_mode: int = 0
    batch: int = 1
    pairs: int = 150
    most: int = 1500
    width: float = 0.02
    budget: float = 15.0
    limit: float | None = None

    def as_json(self) -> dict[str, Any]:
        """What decides the figure, for records."""
        return {key: getattr(self, key) for key in ("threads", "precision", "memory_mode", "batch")}


@dataclass(frozen=True)
class PairedTimes:
    """Seconds per inference of two models, measured in turn; both have shape [pairs].

    `starts` are the places at which the models were loaded anew. Each time is the mean of `loops` inferences.
    """

    reference: npt.NDArray[np.float64]
    candidate: npt.NDArray[np.float64]
    loops: int = 1
    starts: tuple[int, ...] = (0,)
    settings: TimingSettings = field(default_factory=TimingSettings)
    host: Host | None = None

    def tells(self, limit: float | None) -> bool:
        """Whether more pairs would tell no more about a limit than these."""
        if limit is None or limit == self.settings.limit or len(self.reference) < FEWEST:
            return True
        ratio = paired_ratio(self.reference, self.candidate)
        return not ratio.low <= limit <= ratio.high


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of MNN's session, and by how much its process grew at most (None where the system does not tell).

    `error` says why it could not run in this mode.
    """

    session: int = 0
    peak: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class OpTime:
    """The median time of an operator in one inference, in seconds."""

    name: str
    kind: str
    seconds: float
    is_int8: bool = False


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
    with Job(reference, _repeated(inputs, how.batch), send) as job:
        result = job.run(
            "paired",
            what=f"timing {candidate.path.name}",
            timeout=timeout + how.budget,
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


def memory_use(
    model: Model, inputs: Arrays, *, timeout: float, threads: int = 1, send: Send = run_job
) -> Mapping[int, MemoryUse]:
    """What a model holds in each of `MEMORY_MODES`, to be loaded and run on one sample. Raises `NativeFailure`."""
    what = f"measuring the memory of {model.path.name}"
    how = {"threads": threads, "modes": list(MEMORY_MODES)}
    result = _alone("memory", what, model, _repeated(inputs, 1), timeout, send, **how)
    return {int(mode): MemoryUse(**figures) for mode, figures in result["modes"].items()}


def op_times(
    model: Model, inputs: Arrays, *, timeout: float, settings: TimingSettings, send: Send = run_job
) -> tuple[OpTime, ...]:
    """What each operator takes, in the order in which they run. Raises `NativeFailure`."""
    what = f"timing the operators of {model.path.name}"
    how = {"memory": settings.memory_mode, "precision": PRECISIONS[settings.precision], "threads": settings.threads}
    result = _alone("profile", what, model, _repeated(inputs, settings.batch), timeout, send, runs=30, **how)
    found = ((traced(name, kind), seconds) for name, kind, seconds in result["ops"])
    return tuple(OpTime(op.name, op.kind, seconds, op.int8) for op, seconds in found)


def _repeated(inputs: Arrays, batch: int) -> Arrays:
    """A batch of copies of the first sample."""
    return {name: np.repeat(array[:1], batch, axis=0) for name, array in inputs.items()}


def _alone(task: str, what: str, model: Model, batch: Arrays, timeout: float, send: Send, **job: Any) -> dict[str, Any]:
    """A task of the timer on one model and one batch."""
    path, size = str(model.path.resolve()), len(next(iter(batch.values())))
    with Job(model, batch, send) as child:
        return child.run(task, what=what, timeout=timeout, program=_PROGRAM, model=path, batch=size, **job)
