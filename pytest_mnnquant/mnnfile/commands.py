"""The commands that MNN derives from a model's operators before it runs them.

MNN does not run Reshape, Slice and Concat. Such an operator only describes the positions of its values. If another
operator needs the values, one `Raster` gathers them through all such operators in between (MNN 3.6.1, source/geometry).
MNN propagates quantization along these commands, not along the operators of the file.
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
SLICING: Final = frozenset({"Slice", "SliceTf", "StridedSlice", "Unpack", "Crop", "Gather", "GatherV2"})
_REORDERING: Final = frozenset({"Permute", "Transpose", "DepthToSpace", "SpaceToDepth"})
_JOINING: Final = frozenset({"Concat", "Pack"})
#: Views if their second input is a constant.
_SELECTING: Final = frozenset({"Gather", "GatherV2"})
#: Operators whose other inputs are sizes or indices.
_ONE_INPUT: Final = frozenset({"Interp", "Resize", "Pooling", "Pooling3D"})
#: The slot of a pool's kind, by operator.
_POOL_TYPE: Final = {"Pooling": 7, "Pooling3D": 3}
MAX_POOL, AVERAGE_POOL = 0, 1
#: Operators that read only a tensor's shape.
SHAPES: Final = frozenset({"Shape", "Rank", "Size", "PriorBox"})
# The slot of a BinaryOp's activation.
_ACTIVATION: Final = 2
#: Operators that compute each value from one of each input.
ACTIVATIONS: Final = frozenset({"ReLU", "ReLU6", "PReLU", "UnaryOp", "BinaryOp", "Scale"})
_SOURCES: Final = frozenset({"Input", "Const", "TrainableParam"})


@dataclass(frozen=True, slots=True)
class Command:
    """One step of a run. `op` is the operator that it computes; for a Raster, the operator that needs its output.

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


def commands(model: Model, separate: frozenset[str] = SLICING) -> tuple[Command, ...]:
    """The commands of the main graph, in the order in which they run.

    `separate`: the kinds of views of joined tensors that MNN takes only after it has made the joined tensor.
    """
    return tuple(_Lowering(model, separate).run())


def possible_commands(model: Model) -> tuple[tuple[Command, ...], ...]:
    """The commands in all forms that depend on shapes: MNN makes views of joined tensors in one step or in two.

    The form depends on sizes; a batch of one leads to fewer steps. Equal forms occur once.
    """
    forms = (commands(model, separate) for separate in (SLICING, frozenset(), SLICING | _REORDERING))
    return tuple(dict.fromkeys(forms))


class _Lowering:
    def __init__(self, model: Model, separate: frozenset[str]) -> None:
        self._separate = separate
        self._ops = [op for op in model.ops if not op.subgraph and op.outputs]
        self._outputs = {index for index, name in enumerate(model.tensor_names) if name in set(model.output_names)}
        #: The source of each tensor that is only a view.
        self._views: dict[int, tuple[int, ...]] = {}
        self._makers = {output: op for op in self._ops for output in op.outputs}
        self._constant = constant_tensors(self._ops)

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
        """The Raster that turns a view into a tensor, if missing, after the Rasters that it depends on."""
        if tensor not in self._views:
            return
        for joined in self._separate_joins(tensor):
            if tensor in self._views:
                yield from self._gathered(joined, op)
        if tensor not in self._views:  # The file's operators form a cycle.
            return
        origins = self._origins(tensor)
        del self._views[tensor]
        yield Command(RASTER, tuple(origins), tensor, op, narrows=any(origins.values()))

    def _separate_joins(self, tensor: int) -> list[int]:
        """The joined tensors that MNN makes before it takes views of them."""
        tensors: dict[int, None] = {}
        waiting, seen = [tensor], {tensor}
        while waiting:
            view = waiting.pop()
            for origin in self._views.get(view, ()):
                if origin not in self._views or origin in seen:
                    continue
                if self._makers[view].kind in self._separate and len(self._origins(origin)) > 1:
                    tensors[origin] = None
                else:
                    seen.add(origin)
                    waiting.append(origin)
        return sorted(tensors.keys() - {tensor})

    def _origins(self, tensor: int) -> dict[int, bool]:
        """The tensors whose values a view holds, and whether it may hold only a part of them."""
        sides: dict[int, bool] = {}
        waiting = [(tensor, False)]
        seen = set(waiting)
        while waiting:
            view, narrows = waiting.pop()
            if view not in self._views:
                sides[view] = sides.get(view, False) or narrows
                continue
            narrows = narrows or self._makers[view].kind in SLICING
            for item in ((origin, narrows) for origin in reversed(self._views[view])):
                if item not in seen:
                    seen.add(item)
                    waiting.append(item)
        return sides


def constant_tensors(ops: Sequence[Op]) -> set[int]:
    """The tensors that MNN knows before a run: constants, shapes, and values computed from them."""
    tensors: set[int] = set()
    for op in ops:
        if op.kind == "Const" or op.kind in SHAPES or (op.inputs and tensors.issuperset(op.inputs)):
            tensors.update(op.outputs)
    return tensors


def layers_known_ahead(model: Model) -> frozenset[str]:
    """The convolutions that read constants and shapes only, such as those of a recurrent cell's first state."""
    constant = constant_tensors([op for op in model.ops if not op.subgraph])
    return frozenset(op.name for op in model.convolutions if op.inputs and op.inputs[0] in constant)


def joining_operator(model: Model, op: Op) -> str:
    """The operator that joins several tensors into the first input of `op`, looking through views; empty if none."""
    makers = {output: maker for maker in model.ops if not maker.subgraph for output in maker.outputs}
    tensor = op.inputs[0] if op.inputs else -1
    for _ in model.ops:
        maker = makers.get(tensor)
        if maker is None or maker.kind not in VIEWS:
            return ""
        if maker.kind in _JOINING:
            return maker.name
        tensor = maker.inputs[0]
    return ""


def layers_beside(model: Model, name: str) -> tuple[str, ...]:
    """The layers with weights that take what an operator without weights makes, then those that make what it takes.

    Operators that MNN propagates a quantization through are looked through. Empty for layers, and for unknown names.
    """
    ops = [op for op in model.ops if not op.subgraph]
    start = next((op for op in ops if op.name == name and not op.is_convolution), None)
    if start is None:
        return ()
    takers, makers = _layers_behind(ops, start, after=True), _layers_behind(ops, start, after=False)
    return tuple(dict.fromkeys((*takers, *makers)))


def _layers_behind(ops: Sequence[Op], start: Op, *, after: bool) -> list[str]:
    names: dict[str, None] = {}
    waiting, seen = [start], {start.name}
    while waiting:
        op = waiting.pop(0)
        tensors = set(op.outputs if after else op.inputs)
        for other in ops:
            if other.name in seen or tensors.isdisjoint(other.inputs if after else other.outputs):
                continue
            seen.add(other.name)
            if other.is_convolution:
                names[other.name] = None
            elif other.kind in VIEWS or other.kind in _ONE_INPUT or other.kind in ACTIVATIONS:
                waiting.append(other)
    return list(names)


def pool_kind(op: Op) -> int:
    """`MAX_POOL`, `AVERAGE_POOL` or another number; -1 for other operators."""
    slot = _POOL_TYPE.get(op.kind)
    return -1 if slot is None or op.parameters is None else int(op.parameters.scalar(slot, "i8"))


def has_fused_relu(op: Op) -> bool:
    """Whether a ReLU is part of this BinaryOp."""
    return op.kind == "BinaryOp" and op.parameters is not None and op.parameters.scalar(_ACTIVATION, "i32") != 0
