"""Runs a model through both of MNN's APIs, and finds the first operator that differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.api_difference import ApiDifference
from pytest_mnnquant.checks.target.check import furthest
from pytest_mnnquant.evidence.operator_differences import output_scales
from pytest_mnnquant.mnnfile.commands import VIEWS
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.scale_ambiguity import ambiguities
from pytest_mnnquant.runtime.inference import run, tensor_values
from pytest_mnnquant.runtime.options import RunOptions

#: Scales differ in all samples or in none, so few samples are enough.
SAMPLES: Final = 4
# The allowed difference of an operator's output, as a share of its largest value.
_SAME: Final = 0.02
Inputs = Mapping[str, npt.NDArray[Any]]


def compare_apis(model: Model, inputs: Inputs, options: RunOptions, faulty: Collection[str]) -> ApiDifference | None:
    """The output that differs most; None for models with loops, which the Session API can't run.

    `faulty` are operators that MNN is known to compute wrongly.
    Raises `NativeFailure`.
    """
    if model.has_subgraphs:
        return None
    few = {name: array[:SAMPLES] for name, array in inputs.items()}
    through_module = dataclasses.replace(options, through_module=True)
    session = run(model, few, options).outputs
    # Some tools omit the names of outputs, which a session finds by itself.
    module = run(dataclasses.replace(model, output_names=tuple(session)), few, through_module).outputs
    scales = output_scales(model, session)
    # One API pads an output whose size depends on the data, the other cuts it; and for a model with NHWC inputs the two
    # return feature maps in different orders.
    is_nhwc = any(spec.layout == "NHWC" for spec in model.inputs)
    steps = {
        name: furthest({name: array}, module, scales)
        for name, array in session.items()
        if name in module and module[name].shape == array.shape and not (is_nhwc and array.ndim > 2)
    }
    if not steps:
        return None
    worst = max(steps, key=lambda name: steps[name])
    difference = ApiDifference(worst, steps[worst], len(next(iter(few.values()))))
    if difference.is_rounding:
        return difference
    operator = _first_unlike(model, few, options)
    ambiguous = ambiguities(model)
    if ambiguous and operator not in faulty:  # What runs again may run as it did in the other API.
        return dataclasses.replace(difference, operator=ambiguous[0].operator, is_by_address=True)
    return dataclasses.replace(difference, operator=operator)


def _first_unlike(model: Model, inputs: Inputs, options: RunOptions) -> str:
    """The first operator whose output differs; empty if none does."""
    ops = [op for op in model.ops if op.inputs and op.outputs and op.kind not in VIEWS]
    through_module = dataclasses.replace(options, through_module=True)
    session, module = (tensor_values(model, ops, inputs, how) for how in (options, through_module))
    for op in ops:
        (_, first), (_, second) = session[op.name], module[op.name]
        if first is None or second is None or first.size != second.size or not first.size:
            continue
        if float(np.abs(first - second).max()) > _SAME * float(np.abs(first).max()):
            return op.name
    return ""
