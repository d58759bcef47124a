"""Outputs whose size depends on the input's values (NonMaxSuppression, NonZero, boolean indexing).

MNN's Session API pads such an output to its largest size, its Module API gives the right rows. A small change of a
score adds or removes a row, so rows of two models can't be compared one by one. The tensors from which these operators
select are judged in their place. So they are for rows that TopK puts in order, and for a row that ArgMax picks: two
close scores change places.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pytest_mnnquant.mnnfile.commands import VIEWS, constant_tensors
from pytest_mnnquant.mnnfile.model import Model, Op

#: Operators whose output has as many rows as values fulfil a condition. `Where` has one input in MNN.
_SELECTING: Final = frozenset({"NonMaxSuppressionV2", "Where", "Unique"})
#: Operators whose size is the value of an input: its place.
_SIZED: Final = {"TopKV2": 1, "Range": 0, "Fill": 0, "Tile": 1, "StridedSlice": 1, "SliceTf": 1}
#: Operators whose output has a fixed size, whatever they read.
_REDUCING: Final = frozenset({"Reduction", "Shape", "Rank", "Size", "ScatterNd", "ArgMax", "ArgMin"})
#: Operators whose second input gives the rows that they take of the first.
_TAKING: Final = frozenset({"Gather", "GatherV2", "GatherND", "GatherElements"})
_PICKING: Final = frozenset({"ArgMax", "ArgMin"})
#: Operators between a place that is picked and the operator that takes its row.
_MOVING: Final = VIEWS | {"Cast", "BinaryOp"}
#: Operators between a tensor of the network and the selection: they order, compare or convert values.
_PREPARING: Final = VIEWS | _TAKING | {"Cast", "ZerosLike", "BinaryOp", "Select", "Reduction"}
#: Operators that keep the order of rows.
_KEEPING: Final = (_PREPARING - {"Reduction"}) | {"UnaryOp", "Sigmoid", "ReLU", "ReLU6", "Scale"}
_MOST: Final = 8


def data_sized_outputs(model: Model) -> dict[str, tuple[str, ...]]:
    """The outputs of a size or an order that depends on values, with the tensors that are judged in their place."""
    return _Selection(model).outputs()


def has_sized_tensors(model: Model) -> bool:
    """Whether the size of a tensor depends on values. MNN's Session API may refuse such a model."""
    return _Selection(model).has_sized


def judged_outputs(model: Model) -> tuple[str, ...]:
    """The names of the tensors that are compared: outputs of a fixed size, and what is judged in place of others."""
    sized = data_sized_outputs(model)
    names = (replaced for name in model.output_names for replaced in sized.get(name, (name,)))
    return tuple(dict.fromkeys(names))


class _Selection:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._ops = [op for op in model.ops if not op.subgraph]
        self._makers = {output: op for op in self._ops for output in op.outputs}
        self._constant = constant_tensors(self._ops)
        self._sized: set[int] = set()
        self._ordered: set[int] = set()
        self._places: set[int] = set()
        for op in self._ops:
            if self._picks(op) or (op.kind in _MOVING and not self._places.isdisjoint(op.inputs)):
                self._places.update(op.outputs)
            if self._selects(op) or (op.kind not in _REDUCING and not self._sized.isdisjoint(op.inputs)):
                self._sized.update(op.outputs)
            elif self._orders(op) or (op.kind in _KEEPING and not self._ordered.isdisjoint(op.inputs)):
                self._ordered.update(op.outputs)

    @property
    def has_sized(self) -> bool:
        """Whether the size of a tensor depends on values."""
        return bool(self._sized)

    def _selects(self, op: Op) -> bool:
        if op.kind in _SELECTING:
            return not self._constant.issuperset(op.inputs)
        place = _SIZED.get(op.kind)
        return place is not None and not self._constant.issuperset(op.inputs[place:])

    def _orders(self, op: Op) -> bool:
        if op.kind in _TAKING:
            return op.inputs[1] in self._places
        return op.kind == "TopKV2" and op.inputs[0] not in self._constant

    def _picks(self, op: Op) -> bool:
        """Whether an operator picks a place by values that the network computes, which quantization changes."""
        return op.kind in _PICKING and bool(self._sources(op.outputs[0]))

    def outputs(self) -> dict[str, tuple[str, ...]]:
        names = self._model.tensor_names
        selected = self._sized | self._ordered
        found = {names[tensor]: tensor for tensor in selected if names[tensor] in self._model.output_names}
        sources = {name: self._sources(tensor)[:_MOST] for name, tensor in found.items()}
        return {
            name: tuple(names[source] for source in sources[name])
            for name, tensor in found.items()
            if tensor in self._sized or sources[name]
        }

    def _sources(self, tensor: int) -> list[int]:
        """The tensors of the network that a selection reads, in the order of the file."""
        sources: set[int] = set()
        waiting, seen = [tensor], {tensor}
        while waiting:
            for origin in self._before(waiting.pop()):
                if origin in seen:
                    continue
                seen.add(origin)
                maker = self._makers.get(origin)
                if maker is None or (origin not in self._sized | self._ordered and maker.kind not in _PREPARING):
                    sources.add(origin)
                else:
                    waiting.append(origin)
        return sorted(source for source in sources if self._is_computed(source))

    def _before(self, tensor: int) -> Iterator[int]:
        return (origin for origin in self._makers[tensor].inputs if origin not in self._constant)

    def _is_computed(self, tensor: int) -> bool:
        """Whether a tensor is neither an input of the model, which no variant changes, nor known before a run."""
        maker = self._makers.get(tensor)
        return maker is not None and maker.kind not in ("Input", "Const") and tensor not in self._constant
