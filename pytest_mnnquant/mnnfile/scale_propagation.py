"""The tensors that get a quantization which is not in the file, and its sources.

When MNN prepares a quantized model, it propagates the quantization of tensors that have one to tensors that have none,
along Raster, ReLU, ReLU6, Pooling, Interp, CropAndResize and ROIPooling: forward if a command has one input, backward
if it has one output (MNN 3.6.1, source/core/Pipeline.cpp). The starting points are visited in the order of their
addresses in memory, and each overwrites the previous result. So a tensor that two starting points reach has the
quantization of one in some processes, and of the other in the rest.

A resize propagates again, from all tensors that have a quantization by then: so a tensor that two scales reach only
then depends on addresses too.

`propagated` repeats the algorithm for a given order of the tensors, `outcomes` for several orders.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.commands import AVERAGE_POOL, MAX_POOL, RASTER, Command, pool_kind
from pytest_mnnquant.mnnfile.model import Op, TensorQuant

_PROPAGATES: Final = frozenset({RASTER, "ReLU", "ReLU6", "Pooling", "Interp", "CropAndResize", "ROIPooling"})
_PASSES: Final = 3
_SHUFFLED: Final = 6
#: Operators that MNN runs in int8 if all their inputs and their output are quantized.
_ALWAYS_INT8: Final = frozenset(
    {"ConvInt8", "DepthwiseConvInt8", "Softmax", "LayerNorm", "BinaryOp", "Scale", "Interp", "PReLU"}
)
# UnaryOp: slots of the operation and of its table of int8 results; operations that require no table.
_UNARY, _TABLE, _TABLELESS = 0, 2, frozenset({0, 1, 22})
_SLOPE: Final = 0

#: For each tensor with a quantization, the tensor of the file from which it comes.
Sources = Mapping[int, int]


@dataclass(frozen=True)
class Outcome:
    """The result of one order of the tensors. `int8`: the positions of the commands that run in int8."""

    sources: Sources
    int8: frozenset[int]


def outcomes(
    commands: Sequence[Command], quants: Mapping[int, TensorQuant], *, resized: bool = False
) -> tuple[Outcome, ...]:
    """The possible results for a model, without repetitions; one entry: the result does not depend on addresses.

    `resized`: of a session that was resized. Tries the order of the file, its reverse, and some random orders: each of
    two starting points is last in one of them.
    """
    tensors = sorted({tensor for command in commands for tensor in (*command.inputs, command.output)})
    orders = [tensors, tensors[::-1]]
    orders += [random.Random(seed).sample(tensors, len(tensors)) for seed in range(_SHUFFLED)]
    outcomes: list[Outcome] = []
    for order in orders:
        rank = {tensor: place for place, tensor in enumerate(order)}
        sources = propagated(commands, quants, rank.__getitem__)
        if resized:
            sources = _propagated_again(commands, sources, rank.__getitem__)
        outcome = Outcome(sources, int8_commands(commands, quants, sources))
        if outcome not in outcomes:
            outcomes.append(outcome)
    return tuple(outcomes)


def possible_outcomes(commands: Sequence[Command], quants: Mapping[int, TensorQuant]) -> tuple[Outcome, ...]:
    """The possible results of sessions, resized or not."""
    results = (*outcomes(commands, quants), *outcomes(commands, quants, resized=True))
    return tuple(result for place, result in enumerate(results) if result not in results[:place])


def _propagated_again(
    commands: Sequence[Command], sources: Mapping[int, int], order: Callable[[int], int]
) -> dict[int, int]:
    """The sources after a resize: what tensors got by propagation is then like a description in the file."""
    return {tensor: sources[source] for tensor, source in propagated(commands, sources, order).items()}


def propagated(commands: Sequence[Command], quants: Collection[int], order: Callable[[int], int]) -> dict[int, int]:
    """The source of each tensor's quantization, if MNN visits the tensors by `order`; `quants` are the described."""
    forward: dict[int, set[int]] = {}
    backward: dict[int, set[int]] = {}
    for command in commands:
        if command.kind not in _PROPAGATES:
            continue
        if len(command.inputs) == 1 and command.output not in quants:
            forward.setdefault(command.inputs[0], set()).add(command.output)
        for tensor in command.inputs:
            if tensor not in quants:
                backward.setdefault(command.output, set()).add(tensor)
    forward_starts = _starts(forward, backward)
    backward_starts = _starts(backward, forward)
    sources = {tensor: tensor for tensor in quants}
    for _ in range(_PASSES):
        if not (
            _passed_on(sources, forward, sorted(forward_starts, key=order))
            or _passed_on(sources, backward, sorted(backward_starts, key=order))
        ):
            break
    return sources


def _starts(edges: dict[int, set[int]], opposite: Mapping[int, set[int]]) -> set[int]:
    """The starting points of the propagation along `edges`; removes edges of tensors with several neighbours."""
    for joined in opposite.values():
        if len(joined) > 1:
            for tensor in joined:
                edges.pop(tensor, None)
    return edges.keys() - {target for targets in edges.values() for target in targets}


def _passed_on(sources: dict[int, int], edges: Mapping[int, set[int]], starts: Sequence[int]) -> bool:
    """Overwrite the source of all reachable tensors; returns whether one changed."""
    changed = False
    open_tensors = list(reversed(starts))
    while open_tensors:
        tensor = open_tensors.pop()
        if tensor not in sources:
            continue
        for target in edges.get(tensor, ()):
            changed |= sources.get(target) != sources[tensor]
            sources[target] = sources[tensor]
            open_tensors.append(target)
    return changed


def int8_commands(commands: Sequence[Command], quants: Mapping[int, TensorQuant], sources: Sources) -> frozenset[int]:
    """The positions of the commands that run in int8."""
    return frozenset(place for place, one in enumerate(commands) if _runs_in_int8(one, quants, sources))


def _runs_in_int8(command: Command, quants: Mapping[int, TensorQuant], sources: Sources) -> bool:
    if command.output not in sources or not all(tensor in sources for tensor in command.inputs):
        return False
    given = [quants[sources[tensor]] for tensor in command.inputs]
    made = quants[sources[command.output]]
    if any(quant.data_type != "int8" for quant in given):
        return False
    if command.kind in (RASTER, "Pooling"):
        alike = all((quant.scale, quant.zero) == (made.scale, made.zero) for quant in given)
        if command.kind == RASTER:
            return alike and made.scale != 0
        return alike and pool_kind(command.op) in (MAX_POOL, AVERAGE_POOL)
    if command.kind in ("Convolution", "ConvolutionDepthwise"):
        return len(command.inputs) == 1 and _has_int_weights(command.op)
    if command.kind == "ReLU":
        slope = 0.0 if command.op.parameters is None else float(command.op.parameters.scalar(_SLOPE, "f32"))
        return sources[command.inputs[0]] == sources[command.output] and slope == 0
    if command.kind == "UnaryOp":
        table = command.op.parameters
        return table is not None and (table.span(_TABLE, 1)[1] > 0 or int(table.scalar(_UNARY, "i32")) in _TABLELESS)
    return command.kind in _ALWAYS_INT8


def _has_int_weights(op: Op) -> bool:
    return bool(op.weights) and op.weights[0].bits <= 8
