"""How MNN propagates a tensor's quantization beyond its layer.

A params file describes the input and output tensors of convolutions. MNN propagates the quantization of a convolution's
input back over operators that only reshape or pool, to the output of the operator before them, and runs that operator
in int8 too. This has two faults, on x86 and on ARM (MNN 3.6.1, bitwise equal on both):

- a maximum can have another range than its input, so the scale of its output clips its input;
- a BinaryOp with a fused ReLU (a residual Add) clamps its result at code 0, not at the zero point. With a zero point of
  -127, all values below the middle of the range are raised to it.

Therefore the range of such an input includes the range of the operator that it is propagated to, and after a fused
ReLU its zero point is 0. `described_tensors` treats average pools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.commands import AVERAGE_POOL, has_fused_relu, pool_kind
from pytest_mnnquant.mnnfile.model import Model, Op

_POOLS: Final = ("Pooling", "Pooling3D")
_PASSING: Final = frozenset({"Reshape", "Flatten", "ConvertTensor", "Squeeze", "Unsqueeze", "Permute", *_POOLS})


@dataclass(frozen=True, slots=True)
class Propagated:
    """The quantization of `tensor` reaches tensor `output` of `op`, whose fused ReLU may need zero point 0."""

    tensor: int
    op: Op
    output: int
    clamps_at_zero: bool


def find_propagated(model: Model, layers: tuple[Op, ...]) -> tuple[Propagated, ...]:
    """Where MNN propagates the quantization of each layer's input to, if that is an operator of another kind."""
    producers = {output: op for op in model.ops if not op.subgraph for output in op.outputs}
    links = {}
    for layer in layers:
        tensor = output = layer.inputs[0]
        op = producers.get(tensor)
        while op is not None and op.kind in _PASSING and pool_kind(op) != AVERAGE_POOL and op.inputs:
            output = op.inputs[0]
            op = producers.get(output)
        if op is not None and not op.is_convolution and op.kind not in ("Input", "Const", *_POOLS):
            links[tensor] = Propagated(tensor, op, output, has_fused_relu(op))
    return tuple(links.values())


def ops_to_observe(model: Model, layers: tuple[Op, ...], links: tuple[Propagated, ...]) -> tuple[Op, ...]:
    """The operators whose tensors must be observed, each once: layers, targets of propagation, average pools.

    Both sides of an average pool may have to be described (`described_tensors`), which another run would cost.
    """
    # Only the first output of an operator can be observed.
    others = {link.op.name: link.op for link in links if link.output == link.op.outputs[0]}
    pools = (op for op in model.ops if not op.subgraph and op.inputs and pool_kind(op) == AVERAGE_POOL)
    others |= {op.name: op for op in pools}
    return (*layers, *(op for name, op in others.items() if name not in {layer.name for layer in layers}))
