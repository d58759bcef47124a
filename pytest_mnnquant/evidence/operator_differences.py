"""How a variant's operators differ between this host and a target on equal inputs, and how that changes outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.outputs import Outputs
from pytest_mnnquant.checks.target.check import OpDifference, Scales, TargetEvidence, differences, furthest
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.pooling import SHAPE_ONLY
from pytest_mnnquant.runtime.inference import BATCH
from pytest_mnnquant.runtime.operator_outputs import operators_on_host, operators_on_target, spliced_outputs
from pytest_mnnquant.runtime.options import Send

# The batch that differs most is compared operator by operator, up to this number of bytes.
_HELD: Final = 256e6
# For how many operators the outputs are computed with the difference of that operator alone.
_SPLICED: Final = 32


def compare_operators(
    evidence: TargetEvidence, source: SourceUnderTest, on_host: Model, on_target: Model, send: Send
) -> TargetEvidence:
    """The evidence with all operators: of the model on this host, and of the model that `send` runs.

    Raises `NativeFailure`.
    """
    settings = source.settings
    options = source.prepared.options(settings.timeout)
    options = dataclasses.replace(options, memory_mode=settings.timing.memory_mode)
    batch, order = _batch(evidence.on_host, evidence.on_target, BATCH if source.prepared.batched else 1)
    inputs = {name: array[batch] for name, array in source.inputs.items()}
    host_runs, samples = operators_on_host(on_host, inputs, order.tolist(), options, held=_HELD)
    inputs = {name: array[samples] for name, array in inputs.items()}
    target_runs = operators_on_target(on_target, inputs, host_runs, dataclasses.replace(options, send=send))
    scales = {op.name: _scales(on_target, op) for op in on_target.ops if not op.subgraph}
    operators, uncompared = differences(host_runs, target_runs, scales)
    worst = sorted((item for item in operators if item.steps), key=_by_difference)[:_SPLICED]
    replaced = {item.key: target_runs[item.key].outputs for item in worst}
    outputs, spliced = spliced_outputs(on_host, inputs, replaced, options)
    grids = output_scales(on_target, outputs)
    moves = {key: furthest(outputs, changed, grids) for key, changed in spliced.items()}
    operators = [dataclasses.replace(item, moves=moves.get(item.key)) for item in operators]
    return dataclasses.replace(evidence, operators=operators, uncompared=uncompared, samples=len(samples))


def _by_difference(item: OpDifference) -> tuple[float, float]:
    return -item.steps * item.unlike, -item.steps


def output_scales(model: Model, outputs: Collection[str]) -> dict[str, float]:
    """The scales of outputs that are codes, or are codes in another shape."""
    producers = {output: op for op in model.ops if not op.subgraph for output in op.outputs}
    scales = {}
    for name in outputs:
        tensor = model.tensor_names.index(name) if name in model.tensor_names else -1
        while tensor not in model.tensor_quants and tensor in producers and producers[tensor].kind in SHAPE_ONLY:
            tensor = producers[tensor].inputs[0]
        if tensor in model.tensor_quants:
            scales[name] = model.tensor_quants[tensor].scale
    return scales


def _scales(model: Model, op: Op) -> Scales:
    """The scales of an operator's inputs and outputs."""
    quants = model.tensor_quants
    inputs, outputs = (
        tuple(quants[tensor].scale for tensor in tensors if tensor in quants and quants[tensor].data_type == "int8")
        for tensors in (op.inputs, op.outputs)
    )
    return Scales(inputs, outputs)


def _batch(on_host: Outputs, on_target: Outputs, size: int) -> tuple[slice, npt.NDArray[np.int64]]:
    """The batch of the sample whose first output differs most, and its samples in the order of their difference."""
    host, target = next((array, on_target[name]) for name, array in on_host.items() if name in on_target)
    if host.shape != target.shape:
        return slice(size), np.arange(min(size, len(host)))
    distances = np.abs(host.astype(np.float64) - target).reshape(len(host), -1).max(1)
    distances = np.nan_to_num(distances, nan=np.inf)
    start = int(distances.argmax()) // size * size
    return slice(start, start + size), np.argsort(-distances[start : start + size], kind="stable")
