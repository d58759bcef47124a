"""The latency of a variant compared with another model, its memory, and the time of its operators."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pytest_mnnquant.measurements.timing import MEMORY_MODES, PRECISIONS, MemoryUse, OpTime, PairedTimes, TimingSettings
from pytest_mnnquant.mnnfile.data_sizes import has_sized_tensors
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime.background import wait_for_idle
from pytest_mnnquant.runtime.host import host_facts
from pytest_mnnquant.runtime.inference import Arrays, InputFolder, fixed_batch, input_names, traced
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.statistics.paired_ratio import FEWEST_TO_JUDGE

# The number of times that each operator is timed.
_PROFILED: Final = 30


def paired_times(
    reference: Model,
    candidate: Model,
    inputs: Arrays,
    settings: TimingSettings,
    options: RunOptions,
) -> PairedTimes:
    """Time both models side by side in one process, interleaved, with the `timeout`, `send` and `axes` of `options`.

    Raises `NativeFailure`.
    """
    arguments = {
        "models": [str(reference.path.resolve()), str(candidate.path.resolve())],
        "names": [input_names(reference, model) for model in (reference, candidate)],
        "fewest": FEWEST_TO_JUDGE,
        "memory": settings.memory_mode,
        **{**dataclasses.asdict(settings), "precision": PRECISIONS[settings.precision]},
        "batch": _batch(reference, options, settings.batch),
    }
    if _needs_module(reference) or _needs_module(candidate):
        arguments |= {"engine": "module"}
        arguments |= {key: [ends[key] for ends in map(_ends, (reference, candidate))] for key in _ends(reference)}
    options = dataclasses.replace(options, timeout=options.timeout + settings.budget, batched=True)
    wait_for_idle()
    with InputFolder(reference, _repeated(inputs, arguments["batch"]), options) as folder:
        result = folder.run("paired", f"timing {candidate.path.name}", arguments)
        host = result.machine.host if result.machine else host_facts(folder.path / "log.txt")
    first, second = (np.array(times) for times in result.values["times"])
    return PairedTimes(first, second, result.values["loops"], tuple(result.values["starts"]), settings, host)


def memory_use(model: Model, inputs: Arrays, options: RunOptions) -> Mapping[int, MemoryUse]:
    """The memory of a model in each of `MEMORY_MODES`, to load it and run one sample. Raises `NativeFailure`."""
    arguments: dict[str, Any] = {"threads": options.threads, "modes": list(MEMORY_MODES)}
    if _needs_module(model):
        arguments |= {"engine": "module", **_ends(model)}
    what = f"measuring the memory of {model.path.name}"
    values = _run_timer("memory", what, model, _repeated(inputs, _batch(model, options, 1)), options, arguments)
    return {int(mode): MemoryUse(**figures) for mode, figures in values["modes"].items()}


def op_times(model: Model, inputs: Arrays, settings: TimingSettings, options: RunOptions) -> tuple[OpTime, ...]:
    """The time of each operator, in the order of execution; empty for models with loops. Raises `NativeFailure`."""
    if _needs_module(model):
        return ()
    arguments = {
        "memory": settings.memory_mode,
        "precision": PRECISIONS[settings.precision],
        "threads": settings.threads,
        "runs": _PROFILED,
    }
    what = f"timing the operators of {model.path.name}"
    wait_for_idle()
    batch = _repeated(inputs, _batch(model, options, settings.batch))
    values = _run_timer("profile", what, model, batch, options, arguments)
    ops = ((traced(name, kind), seconds) for name, kind, seconds in values["ops"])
    return tuple(OpTime(op.name, op.kind, seconds, op.int8) for op, seconds in ops)


def _batch(model: Model, options: RunOptions, requested: int) -> int:
    """The samples per inference: as requested, or as many as the model always takes."""
    return fixed_batch(model, options.axes) or requested


def _needs_module(model: Model) -> bool:
    return model.has_subgraphs or has_sized_tensors(model)


def _ends(model: Model) -> dict[str, list[str]]:
    """The names of a model's inputs and outputs, which MNN's Module API requires."""
    return {"input_names": [spec.name for spec in model.inputs], "outputs": list(model.output_names)}


def _repeated(inputs: Arrays, batch: int) -> Arrays:
    """A batch of copies of the first sample."""
    return {name: np.repeat(array[:1], batch, axis=0) for name, array in inputs.items()}


def _run_timer(
    task: str, what: str, model: Model, batch: Arrays, options: RunOptions, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The result of a timer task for one model and one batch."""
    shared = {"model": str(model.path.resolve()), "batch": len(next(iter(batch.values())))}
    with InputFolder(model, batch, options) as folder:
        return folder.run(task, what, {**shared, **arguments}).values
