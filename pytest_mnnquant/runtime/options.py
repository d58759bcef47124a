"""How a model is run: the options that all jobs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.measurements.sequences import Sequences
from pytest_mnnquant.measurements.timing import NORMAL
from pytest_mnnquant.runtime.jobs import Job, JobResult, run_job

#: Runs the job of a folder: `run_job` on this machine, or the `send` of a target.
Send = Callable[[Job, Path], JobResult]


@dataclass(frozen=True)
class RunOptions:
    """How a model is run, on this machine unless `send` runs it on a target.

    `timeout` is the limit of one job, in seconds without progress. `batched` feeds several samples at once; False: one
    by one, for models with a fixed batch of 1. `memory_mode` is one of `MEMORY_MODES`. `through_module` uses MNN's
    Module API, which gives no trace; models with While or If bodies always use it. `axes` are those that count samples.
    `sequences`: samples are steps, and `run` feeds outputs back within each sequence.
    """

    timeout: float
    batched: bool = True
    threads: int = 1
    memory_mode: int = NORMAL
    send: Send = run_job
    through_module: bool = False
    axes: SampleAxes = field(default_factory=SampleAxes)
    sequences: Sequences | None = None
