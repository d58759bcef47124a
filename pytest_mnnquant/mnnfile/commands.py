"""The commands that MNN makes of a model's operators before it runs them.

MNN runs no Reshape, Slice or Concat. Such an operator only describes where its values lie; when another operator needs
them, one `Raster` gathers them, through as many of these operators as there are in between (MNN 3.6.1,
source/geometry). MNN propagates quantization along these commands, not along the operators of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.model import Model, Op

RASTER: Final = "Raster"
#: Operators that only move values: of the first input, or of all inputs (`_JOINING`).
VIEWS: Final = frozenset(
    {
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "ExpandDims", "Identity", "ConvertTensor", "Permute"),
        *("Transpose", "Slice", "SliceTf", "StridedSlice", "Unpack", "Crop", "Padding", "BroadcastTo", "Tile"),
        *("DepthToSpace", "SpaceToDepth", "SpaceToBatchND", "BatchToSpaceND", "Reverse", "Concat", "Pack"),
    }
)
_SLICING: Final = frozenset({"Slice", "SliceTf", "StridedSlice", "Unpack", "Crop", "Gather", "GatherV2"})
_JOINING: Final = frozenset({"Concat", "Pack"})
#: Views where their second input is a constant.
_SELECTING: Final = frozenset({"Gather", "GatherV2"})
#: Operators whose further inputs are sizes or indices.
_ONE_INPUT: Final = frozenset({"Interp", "Resize", "Pooling", "Pooling3D"})
#: The slot of a pool's kind, by operator.
_POOL_TYPE: Final = {"Pooling": 7, "Pooling3D": 3}
MAX_POOL, AVERAGE_POOL = 0, 1
#: Operators that look at a tensor's shape only.
_SHAPES: Final = frozenset({"Shape", "Rank", "Size", "PriorBox"})
_SOURCES: Final = frozenset({"Input", "Const", "TrainableParam"})


@dataclass(frozen=True, slots=True)
class Command:
    """One step of a run. `op` is the operator that it computes, for a Raster the one that needs its output.

    Tensors are the file's, by index. `narrows`: the output may span less than the inputs (a slice, a mean).
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    op: Op
    narrows: bool = False

    @property
    def title(self) -> str:
        """The operator's kind and name."""
        return f"{self.op.kind} {self.op.name}"


def commands(model: Model, *, slices_joins: bool = False) -> tuple[Command, ...]:
    """The commands of the main graph, in the order in which they run.

    MNN makes a slice of joined tensors in one step or in two, by their shapes (a batch of one has simpler ones).
    `slices_joins`: in one.
    """
    return tuple(_Lowering(model, slices_joins).run())


def both_forms(model: Model) -> tuple[tuple[Command, ...], ...]:
    """The commands in the two forms that shapes can lead to; one entry if they are the same."""
    forms = commands(model), commands(model, slices_joins=True)
    return forms[:1] if forms[0] == forms[1] else forms


class _Lowering:
    def __init__(self, model: Model, slices_joins: bool) -> None:
        self._slices_joins = slices_joins
        self._ops = [op for op in model.ops if not op.subgraph and op.outputs]
        self._outputs = {index for index, name in enumerate(model.tensor_names) if name in set(model.output_names)}
        #: What each tensor that is only a view is a view of.
        self._views: dict[int, tuple[int, ...]] = {}
        self._makers = {output: op for op in self._ops for output in op.outputs}
        self._constant = _constants(self._ops)

    def run(self) -> Iterator[Command]:
        for op in self._ops:
            if op.kind in _SOURCES or self._constant.issuperset(op.outputs):
                continue
            if self._is_view(op):
                inputs = op.inputs if op.kind in _JOINING else op.inputs[:1]
                self._views |= dict.fromkeys(op.outputs, inputs)
                for output in self._outputs.intersection(op.outputs):
                    yield from self._gathered(output, op)
                continue
            inputs = op.inputs[:1] if op.kind in _ONE_INPUT else op.inputs
            for tensor in inputs:
                yield from self._gathered(tensor, op)
            kind = op.kind.removesuffix("3D") if op.kind in _ONE_INPUT else op.kind
            for output in op.outputs:
                yield Command(kind, inputs, output, op, narrows=pool_kind(op) == AVERAGE_POOL)

    def _is_view(self, op: Op) -> bool:
        if op.kind in _SELECTING:
            return op.inputs[1:2] != () and op.inputs[1] in self._constant
        return op.kind in VIEWS and op.inputs != ()

    def _gathered(self, tensor: int, op: Op) -> Iterator[Command]:
        """The Raster that makes a view into a tensor, if it is not made yet; what it can't look through comes first."""
        if tensor not in self._views:
            return
        for joined in () if self._slices_joins else self._sliced_joins(tensor):
            yield from self._gathered(joined, op)
        found: dict[int, bool] = {}
        for origin, narrows in self._origins(tensor, narrows=False):
            found[origin] = found.get(origin, False) or narrows
        del self._views[tensor]
        yield Command(RASTER, tuple(found), tensor, op, narrows=any(found.values()))

    def _sliced_joins(self, tensor: int) -> list[int]:
        """The views of several tensors of which a view takes a part: MNN makes these first."""
        found: list[int] = []
        for origin in self._views.get(tensor, ()):
            if origin not in self._views:
                continue
            if self._makers[tensor].kind in _SLICING and len(dict(self._origins(origin, narrows=False))) > 1:
                found.append(origin)
            else:
                found += self._sliced_joins(origin)
        return found

    def _origins(self, tensor: int, *, narrows: bool) -> Iterator[tuple[int, bool]]:
        """The tensors whose values a view holds, and whether it may hold a part of them only."""
        if tensor not in self._views:
            yield tensor, narrows
            return
        narrows = narrows or self._makers[tensor].kind in _SLICING
        for origin in self._views[tensor]:
            yield from self._origins(origin, narrows=narrows)


def _constants(ops: Sequence[Op]) -> set[int]:
    """The tensors that MNN knows before a run: constants, shapes, and what is computed of them."""
    found: set[int] = set()
    for op in ops:
        if op.kind == "Const" or op.kind in _SHAPES or (op.inputs and found.issuperset(op.inputs)):
            found.update(op.outputs)
    return found


def pool_kind(op: Op) -> int:
    """`MAX_POOL`, `AVERAGE_POOL` or another number; -1 for what is not a pool."""
    slot = _POOL_TYPE.get(op.kind)
    return -1 if slot is None or op.parameters is None else int(op.parameters.scalar(slot, "i8"))
