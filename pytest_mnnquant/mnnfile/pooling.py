"""A copy of an int8 model for evaluation, whose MaxPool is exact on x86 too.

MNN stores int8 tensors on x86 as bytes offset by 128, but its int8 MaxPool compares them as signed numbers
(`MNNMaxPoolInt8_`, source/backend/cpu/x86_x64/FunctionDispatcher.cpp), so a window with codes of both signs gives the
largest negative one. ARM's result is right. If a pool's input and output have different quantization, MNN dequantizes,
pools in float and quantizes again, with exactly ARM's result. So in the copy, the output's zero point differs from the
input's by one float32 step: MNN compares zero points as floats and computes with them as integers, so no other code in
the network changes (a scale changed by 1 in 10,000 would change codes: the next layer computes with it). No weight is
changed.

Between operators that compute in float, such a pool would read values that are not rounded to codes. It reads a copy of
its input in the copy, which MNN makes in int8.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from pytest_mnnquant.mnnfile.commands import AVERAGE_POOL, MAX_POOL, Command, pool_kind, possible_commands
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant
from pytest_mnnquant.mnnfile.quants import with_quants, write_with_quants
from pytest_mnnquant.mnnfile.scale_propagation import Sources, possible_outcomes
from pytest_mnnquant.mnnfile.separate_inputs import with_separate_inputs

#: Operators that change only shape and layout, through which MNN propagates a quantization.
SHAPE_ONLY: Final = {"Reshape", "ConvertTensor", "Squeeze", "Unsqueeze", "Flatten", "Permute"}
_TINY: Final = 1e-30
#: The end of the names of pools' inputs in codes.
_CODED: Final = "__codes"


def is_max_pool(op: Op) -> bool:
    """Whether the operator is a MaxPool."""
    return pool_kind(op) == MAX_POOL


def write_exact_copy(model: Model, int8_pools: Collection[str], path: Path) -> tuple[str, ...]:
    """Write a copy of `model` to `path` in which the named MaxPool operators pool exactly; returns their names.

    `int8_pools` are the operators that the op trace showed as int8 `Pooling`. In the copy, all tensors to which MNN
    propagates a quantization have it in the file, so that the change at the pools affects no other operator. An average
    pool after such a pool must keep one zero point on both sides; otherwise it would leave its int8 arithmetic, which
    rounds down. Without int8 pools, nothing is written.
    """
    steps, sources, coded = _as_traced(model, int8_pools)
    known = {tensor: model.tensor_quants[source] for tensor, source in sources.items()}
    # MNN splits a model with loops into parts, and misreads described tensors between two parts.
    quants = dict(model.tensor_quants) if model.has_subgraphs else dict(known)
    changed: dict[str, None] = {}
    for step in steps:
        if step.op.name not in int8_pools or step.kind != "Pooling":
            continue
        if pool_kind(step.op) != MAX_POOL:
            if changed and step.inputs[0] in quants and step.output in quants:
                quants[step.output] = quants[step.inputs[0]]
            continue
        quant = quants.get(step.inputs[0]) or known.get(step.inputs[0]) or known.get(step.output)
        if quant is not None:
            quants[step.inputs[0]] = quant
            quants[step.output] = dataclasses.replace(quant, zero=_beside(quant.zero))
            changed[step.op.name] = None
    if changed:
        write_with_quants(model, quants, path)
        floats = {step.op.name: step.inputs[0] for step in steps if step.inputs and step.inputs[0] not in coded}
        _write_coded_inputs({name: floats[name] for name in changed if name in floats}, quants, model, path)
    return tuple(changed)


def _write_coded_inputs(inputs: Mapping[str, int], quants: Mapping[int, TensorQuant], model: Model, path: Path) -> None:
    """Let pools read copies of their inputs as codes. `inputs`: the tensor that each pool reads, by its name."""
    if not inputs or model.has_subgraphs:
        return
    order = [op.name for op in model.ops if op.name in inputs and not op.subgraph]
    copies = {len(model.tensor_names) + place: quants[inputs[name]] for place, name in enumerate(order)}
    data = with_separate_inputs(path.read_bytes(), {name: f"{name}{_CODED}" for name in order})
    path.write_bytes(with_quants(data, {**quants, **copies}))


def _as_traced(model: Model, int8_pools: Collection[str]) -> tuple[tuple[Command, ...], Sources, set[int]]:
    """The commands, the sources of their quantizations if these pools run in int8, and the tensors made in int8."""
    best: tuple[int, tuple[Command, ...], Sources, set[int]] | None = None
    for steps in possible_commands(model):
        for way in possible_outcomes(steps, model.tensor_quants):
            int8 = {steps[place].op.name for place in way.int8 if steps[place].kind == "Pooling"}
            unlike = len(int8.symmetric_difference(int8_pools))
            if best is None or unlike < best[0]:
                best = unlike, steps, way.sources, {steps[place].output for place in way.int8}
    assert best is not None  # At least one form and one outcome exist.
    return best[1:]


def _beside(zero: float) -> float:
    """The next float32 after a zero point, away from 0; its integer value is the same."""
    near = np.float32(zero)
    return float(np.nextafter(near, np.copysign(np.float32(np.inf), near))) if zero else _TINY


def pools_right(machine: str = "") -> bool:
    """Whether the int8 MaxPool of an architecture (default: this machine's) is right; it is wrong only on x86."""
    return (machine or os.uname().machine) not in ("x86_64", "i386", "i686", "AMD64")


def expected_int8_pools(model: Model) -> set[str]:
    """The pools that MNN runs in int8, from the file, for models without an op trace."""
    return {
        steps[place].op.name
        for steps in possible_commands(model)
        for way in possible_outcomes(steps, model.tensor_quants)
        for place in way.int8
        if steps[place].kind == "Pooling"
    }


def uncovered_pools(model: Model, int8_pools: Iterable[str], covered: Collection[str]) -> tuple[str, ...]:
    """The MaxPool operators among the int8 pools, without those in `covered`."""
    means = {op.name for op in model.ops if pool_kind(op) == AVERAGE_POOL}
    return tuple(dict.fromkeys(name for name in int8_pools if name not in means and name not in covered))
