"""The parts of a model's outputs: by its graph, with the shapes of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.part_variation import PartEvidence
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.output_parts import (
    OutputParts,
    output_parts,
    probabilities,
    tensors_behind,
    tensors_moved,
)
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions


def find_parts(
    model: Model, inputs: Mapping[str, npt.NDArray[Any]], timeout: float, axes: SampleAxes | None = None
) -> dict[str, OutputParts]:
    """The parts of each output that joins several tensors; outputs that MNN can't show in parts are left out.

    `axes` are those of the inputs that count samples.
    """
    parts = {}
    for name in model.output_names:
        tensors = tensors_behind(model, name)
        if not tensors:
            continue
        inner = dataclasses.replace(model, output_names=tensors)
        try:
            tried = run(
                inner,
                {key: array[:1] for key, array in inputs.items()},
                _options(timeout, axes or SampleAxes(), tensors),
            )
        except NativeFailure:  # MNN removes some tensors when it loads a model, so they can't be outputs.
            continue
        known = output_parts(model, name, tried.outputs)
        if known is not None:
            parts[name] = known
    return parts


def _options(timeout: float, axes: SampleAxes, tensors: tuple[str, ...]) -> RunOptions:
    """A run of one sample that changes the shape of no tensor."""
    kept = SampleAxes(axes.inputs, dict.fromkeys(tensors, 0))
    return RunOptions(timeout, batched=False, through_module=True, axes=kept)


def part_evidence(base: Model, parts: Mapping[str, OutputParts], variant: Model) -> PartEvidence:
    """The parts of the float model's outputs, with the int8 scales of the tensors in a variant's file."""
    scales = {variant.tensor_names[tensor]: quant for tensor, quant in variant.tensor_quants.items()}
    moved = {name: tensors_moved(base, name) for name in base.output_names if name not in parts}
    return PartEvidence(parts, scales, moved, probabilities(base))
