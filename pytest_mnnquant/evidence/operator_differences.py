"""What a variant's operators make of the same values here and on a target, and what becomes of that at its outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.outputs import Outputs
from pytest_mnnquant.checks.target.check import Scales, TargetEvidence, differences, furthest
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.pooling import SHAPE_ONLY
from pytest_mnnquant.runtime.inference import BATCH
from pytest_mnnquant.runtime.operator_outputs import operators_on_host, operators_on_target, spliced_outputs
from pytest_mnnquant.runtime.options import RunOptions, Send

# The batch that differs most is looked at operator by operator, or so many bytes of it.
_HELD: Final = 256e6
# Of so many operators it is seen what their difference alone makes of the outputs.
_CARRIED: Final = 32


def compare_operators(
    evidence: TargetEvidence, gate: SourceUnderTest, ours: Model, theirs: Model, send: Send
) -> TargetEvidence:
    """The evidence with all operators: of the model that runs here, and of the one that `send` has run elsewhere.

    Raises `NativeFailure`.
    """
    options = RunOptions(gate.settings.timeout, memory_mode=gate.settings.timing.memory_mode)
    batch, order = _batch(evidence.here, evidence.there, BATCH if gate.prepared.batched else 1)
    inputs = {name: array[batch] for name, array in gate.inputs.items()}
    here, samples = operators_on_host(ours, inputs, order.tolist(), options, held=_HELD)
    inputs = {name: array[samples] for name, array in inputs.items()}
    there = operators_on_target(theirs, inputs, here, dataclasses.replace(options, send=send))
    scales = {op.name: _scales(theirs, op) for op in theirs.ops if not op.subgraph}
    found, uncompared = differences(here, there, scales)
    apart = sorted((one for one in found if one.steps), key=lambda one: (-one.steps * one.unlike, -one.steps))
    made = {one.which: there[one.which].made for one in apart[:_CARRIED]}
    plain, changed = spliced_outputs(ours, inputs, made, options)
    grids = output_scales(theirs, plain)
    moved = {which: furthest(plain, outputs, grids) for which, outputs in changed.items()}
    operators = [dataclasses.replace(one, moves=moved.get(one.which)) for one in found]
    return dataclasses.replace(evidence, operators=operators, uncompared=uncompared, samples=len(samples))


def output_scales(model: Model, outputs: Collection[str]) -> dict[str, float]:
    """The scales of outputs that are codes, or are codes in another shape."""
    made = {output: op for op in model.ops if not op.subgraph for output in op.outputs}
    found = {}
    for name in outputs:
        tensor = model.tensor_names.index(name) if name in model.tensor_names else -1
        while tensor not in model.tensor_quants and tensor in made and made[tensor].kind in SHAPE_ONLY:
            tensor = made[tensor].inputs[0]
        if tensor in model.tensor_quants:
            found[name] = model.tensor_quants[tensor].scale
    return found


def _scales(model: Model, op: Op) -> Scales:
    """The scales of what an operator takes and makes."""
    quants = model.tensor_quants
    taken, made = (tuple(quants[one].scale for one in ends if one in quants) for ends in (op.inputs, op.outputs))
    return Scales(taken, made)


def _batch(here: Outputs, there: Outputs, size: int) -> tuple[slice, npt.NDArray[np.int64]]:
    """The batch of the sample whose first output differs most, and its samples in the order of their difference."""
    ours, theirs = next((array, there[name]) for name, array in here.items() if name in there)
    if ours.shape != theirs.shape:
        return slice(size), np.arange(min(size, len(ours)))
    off = np.nan_to_num(np.abs(ours.astype(np.float64) - theirs).reshape(len(ours), -1).max(1), nan=np.inf)
    start = int(off.argmax()) // size * size
    return slice(start, start + size), np.argsort(-off[start : start + size], kind="stable")
