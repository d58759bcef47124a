"""Distinguishes constants that are weights from constants that are added, compared or multiplied element by element.

Tables of positions, attention masks, bias tables and anchors are constants too, but no tool stores them in low bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_mnnquant.mnnfile.commands import SHAPES, VIEWS, constant_tensors
from pytest_mnnquant.mnnfile.model import CONVOLUTIONS, Model, Op

#: Operators whose constant inputs are weights. The body of a loop may do anything with its inputs.
_READERS: Final = frozenset(
    {
        *CONVOLUTIONS,
        *("MatMul", "BatchMatMul", "InnerProduct", "Convolution3D", "ConvTranspose3D", "Conv2DBackPropFilter"),
        *("LSTM", "LSTMBlockCell", "RNN", "RNNSequenceGRU", "Attention", "MoE"),
        *("While", "If", "Plugin", "Extra"),
    }
)
#: Operators that change the shape of their first input; the others say how.
_RESHAPING: Final = VIEWS - {"Concat", "Pack", "Padding"} | {"Cast"}
#: Operators that look rows up in their first input.
_LOOKUPS: Final = frozenset({"Gather", "GatherV2", "GatherND", "GatherElements"})


def operand_constants(model: Model) -> frozenset[tuple[str, str]]:
    """The (subgraph, name) of each large constant that is not a weight.

    It is a weight if it, or what is computed from constants alone, is read by a matrix product, a convolution, a
    look-up or a recurrent operator, or by no operator. Constants that are scaled at run time, or that a layer with
    weights of its own takes as data, do not count as weights.
    """
    candidates = [op for op in model.ops if op.kind == "Const" and op.is_layer]
    graphs = {op.subgraph: _Graph([other for other in model.ops if other.subgraph == op.subgraph]) for op in candidates}
    return frozenset((op.subgraph, op.name) for op in candidates if not graphs[op.subgraph].reads_as_weight(op))


def _is_data_of_layer(op: Op, tensor: int) -> bool:
    """Whether a convolution or Linear layer takes the constant as its data, such as learned queries of a decoder."""
    return op.kind in CONVOLUTIONS and op.is_layer and tensor == op.inputs[0] and tensor not in op.inputs[1:]


class _Graph:
    """The operators of a graph, and the tensors that are known before a run."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self._known = constant_tensors(ops)
        self._readers: dict[int, list[Op]] = {}
        for op in ops:
            for tensor in dict.fromkeys(op.inputs):
                self._readers.setdefault(tensor, []).append(op)

    def reads_as_weight(self, constant: Op) -> bool:
        waiting, seen = list(constant.outputs), set(constant.outputs)
        is_read = False
        while waiting:
            tensor = waiting.pop()
            for op in self._readers.get(tensor, ()):
                is_read = True
                if _is_data_of_layer(op, tensor):
                    continue
                if op.kind in _READERS or (op.kind in _LOOKUPS and op.inputs[0] == tensor):
                    return True
                if self._passes(op, tensor):
                    waiting += [output for output in op.outputs if output not in seen]
                    seen.update(op.outputs)
        return not is_read

    def _passes(self, op: Op, tensor: int) -> bool:
        """Whether the outputs hold the constant's values: in another shape, or computed from constants alone."""
        if op.kind in SHAPES:
            return False
        return self._known.issuperset(op.inputs) or (op.kind in _RESHAPING and op.inputs[0] == tensor)
