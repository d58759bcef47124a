"""Distinguishes constants that are weights from constants that are added, compared or multiplied element by element.

Tables of positions, attention masks, bias tables and anchors are constants too, but no tool stores them in low bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_mnnquant.mnnfile.commands import constant_tensors
from pytest_mnnquant.mnnfile.model import CONVOLUTIONS, Model, Op

#: Operators whose constant inputs are weights. The body of a loop may do anything with its inputs.
_READERS: Final = frozenset(
    {
        *CONVOLUTIONS,
        *("MatMul", "BatchMatMul", "InnerProduct", "Convolution3D", "ConvTranspose3D", "Conv2DBackPropFilter"),
        *("LSTM", "LSTMBlockCell", "RNN", "RNNSequenceGRU", "Attention", "LinearAttention", "MoE"),
        *("While", "If", "Plugin", "Extra"),
    }
)
#: Operators that look rows up in their first input.
_LOOKUPS: Final = frozenset({"Gather", "GatherV2", "GatherND", "GatherElements"})


def operand_constants(model: Model) -> frozenset[tuple[str, str]]:
    """The (subgraph, name) of each large constant that is not a weight.

    It is a weight if it, or what is computed from constants alone, is read by a matrix product, a convolution, a
    look-up or a recurrent operator, or by no operator.
    """
    candidates = [op for op in model.ops if op.kind == "Const" and op.is_layer]
    graphs = {op.subgraph: [other for other in model.ops if other.subgraph == op.subgraph] for op in candidates}
    return frozenset((op.subgraph, op.name) for op in candidates if not _is_weight(op, graphs[op.subgraph]))


def _is_weight(constant: Op, ops: Sequence[Op]) -> bool:
    known = constant_tensors(ops)
    waiting, seen, is_read = list(constant.outputs), set(constant.outputs), False
    while waiting:
        tensor = waiting.pop()
        for op in ops:
            if tensor not in op.inputs:
                continue
            if op.kind in _READERS or (op.kind in _LOOKUPS and op.inputs[0] == tensor):
                return True
            is_read = True
            if known.issuperset(op.inputs):
                waiting += [output for output in op.outputs if output not in seen]
                seen.update(op.outputs)
    return not is_read
