"""Whether a model file takes batches, and which axis of its outputs counts samples."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.mnnfile.data_sizes import has_sized_tensors
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.conversion_proof import compare_outputs, is_proven, proof_samples
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TriedBatch:
    """A run on some samples, batched if that gives the same outputs as one sample at a time, and its options.

    `together` is the batched run if it gives others.
    """

    run: Run
    options: RunOptions
    together: Run | None = None


def try_batch(model: Model, data: Dataset, timeout: float) -> TriedBatch:
    """Run some samples one by one and together (a fixed batch of 1 may not give the same). Raises `NativeFailure`."""
    samples = data.head(proof_samples(data))
    options = RunOptions(timeout, batched=False, axes=SampleAxes(data.axes))
    alone = run(model, samples, options)
    if options.axes.is_single:
        return TriedBatch(alone, options)
    together = dataclasses.replace(options, batched=True)
    several = _together(model, samples, together)
    if several is not None and _is_same(alone, several):
        return TriedBatch(several, together)
    axes = _output_axes(model, data, together, alone)
    if any(axes.values()):
        together = dataclasses.replace(together, axes=SampleAxes(data.axes, axes))
        alone = run(model, samples, dataclasses.replace(together, batched=False))
        several = _together(model, samples, together)
        if several is not None and _is_same(alone, several):
            return TriedBatch(several, together)
        return TriedBatch(alone, dataclasses.replace(together, batched=False), several)
    return TriedBatch(alone, options, several)


def _together(model: Model, samples: dict[str, Array], options: RunOptions) -> Run | None:
    """A batched run; None if the model refuses batches.

    Of outputs of another size for each value, a run has the tensors before them, so their operators run too.
    """
    try:
        if has_sized_tensors(model):
            run(model, {name: array[:2] for name, array in samples.items()}, options, model.output_names)
        return run(model, samples, options)
    except (NativeFailure, ValueError):
        return None


def _is_same(alone: Run, together: Run) -> bool:
    try:
        return is_proven(compare_outputs(alone.outputs, together.outputs))
    except ValueError:
        return False


def _output_axes(model: Model, data: Dataset, options: RunOptions, alone: Run) -> dict[str, int]:
    """The axis on which each output of a batch of two is twice as long as that of one sample; empty if none is."""
    if data.samples < 2:
        return {}
    try:
        pair = run(model, data.head(2), options)
    except NativeFailure:
        return {}
    axes = {}
    for name, both in pair.outputs.items():
        sample = alone.outputs[name].shape[1:] if name in alone.outputs else ()
        shape = sample if len(sample) == both.ndim else (1, *sample)
        doubled = [axis for axis, size in enumerate(both.shape) if len(shape) == both.ndim and size == 2 * shape[axis]]
        if len(doubled) != 1 or shape[doubled[0]] != 1:
            return {}
        axes[name] = doubled[0]
    return axes
