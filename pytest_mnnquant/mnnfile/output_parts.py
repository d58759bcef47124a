"""The parts of an output: the tensors that Concat and Pack join into it, and the place of each of their values.

MNN's file has no shapes, so they come from a run of the model. Each joined tensor gets a number; the operators between
the join and the output are applied to these numbers instead of the values. Operators that take elements by indices are
followed by the values of that run: an element has the number of the input's element with the same value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.commands import constant_tensors
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.settings import settings

Places = npt.NDArray[np.int32]
Values = npt.NDArray[Any]

#: More joined tensors than this are steps of one computation, not parts with a meaning.
_MOST: Final = 64
_JOINS: Final = frozenset({"Concat", "Pack", "ScatterNd"})
_RESHAPES: Final = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "ExpandDims", "Identity"})
_REORDERS: Final = frozenset({"Permute", "Transpose", "ConvertTensor"})
_SLICES: Final = frozenset({"StridedSlice", "SliceTf"})
_BY_VALUES: Final = _SLICES | {"Gather", "GatherV2", "GatherND", "GatherElements", "ScatterNd"}
#: At least this share of the elements of such an operator has a value that a single part of its inputs holds.
_CLEAR: Final = 0.9
_ELEMENTWISE: Final = frozenset(
    {"UnaryOp", "ReLU", "ReLU6", "PReLU", "ELU", "Selu", "Sigmoid", "TanH", "Scale", "Cast", "BinaryOp"}
)
#: Elementwise operators whose results may have another unit than their inputs.
_RESCALES: Final = frozenset({"BinaryOp", "Scale"})
# Codes of MNN's UnaryOp and BinaryOp.
_SIGMOID, _MUL = 29, 2
_CHANNELS_LAST: Final = ((0, 2, 3, 1), (0, 3, 1, 2))


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor with one meaning, which operators join into an output. Names are those in the file.

    `joined_by` is the last of these operators, and `joined` its input that holds the tensor. `is_probability`: the
    values are results of Sigmoid or Softmax, so 1 is their natural size. `behind` names the tensors from the output
    down to this one.
    """

    tensor: str
    joined_by: str
    joined: str
    is_probability: bool
    behind: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class OutputParts:
    """The parts of an output. `places` holds the number of the part of each element, in the shape of one run."""

    parts: tuple[Part, ...]
    places: Places


class _NoParts(Exception):
    """The places can't be followed through an operator."""


def tensors_behind(model: Model, output: str) -> tuple[str, ...]:
    """The names of the tensors whose shapes `output_parts` needs; empty if nothing is joined into the output."""
    graph = _Graph(model)
    tensor = graph.index(output)
    if tensor is None:
        return ()
    seen: dict[int, None] = {}
    waiting, has_join = [tensor], False
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen[tensor] = None
        maker = graph.makers.get(tensor)
        if maker is None:
            continue
        has_join |= maker.kind in _JOINS and tensor not in graph.constant
        if maker.kind == "Slice":
            seen |= dict.fromkeys(maker.outputs)
        waiting += graph.followed(maker)
    return tuple(model.tensor_names[tensor] for tensor in seen) if has_join else ()


def tensors_moved(model: Model, output: str) -> tuple[str, ...]:
    """The names of the tensors whose values an output holds, moved or changed one by one; the output's own first."""
    graph = _Graph(model)
    tensor, names = graph.index(output), []
    while tensor is not None and graph.names[tensor] not in names:
        names.append(graph.names[tensor])
        maker = graph.makers.get(tensor)
        inputs = () if maker is None else graph.followed(maker)
        tensor = inputs[0] if len(inputs) == 1 else None
    return tuple(names)


def output_parts(model: Model, output: str, values: Mapping[str, Values]) -> OutputParts | None:
    """The parts of an output, by the values of `tensors_behind`; None if it has a single one, or too many."""
    graph = _Graph(model)
    tensor = graph.index(output)
    if tensor is None or output not in values:
        return None
    places = _Places(graph, values)
    try:
        numbers = places.of(tensor, _Path())
    except _NoParts:
        return None
    return OutputParts(tuple(places.parts), numbers) if len(np.unique(numbers)) > 1 else None


def probabilities(model: Model) -> frozenset[str]:
    """The outputs that Sigmoid or Softmax make, moved at most."""
    graph = _Graph(model)
    tensors = {name: graph.index(name) for name in model.output_names}
    return frozenset(name for name, tensor in tensors.items() if tensor is not None and graph.is_probability(tensor))


class _Graph:
    def __init__(self, model: Model) -> None:
        ops = [op for op in model.ops if not op.subgraph]
        self.names = model.tensor_names
        self.makers = {output: op for op in ops for output in op.outputs}
        self.constant = constant_tensors(ops)

    def index(self, name: str) -> int | None:
        """The tensor of a name."""
        return self.names.index(name) if name in self.names else None

    def followed(self, op: Op) -> tuple[int, ...]:
        """The inputs whose values the output of `op` holds, moved or changed one by one; empty for other operators."""
        if op.kind == "ScatterNd":
            return tuple(tensor for tensor in op.inputs if tensor not in self.constant)
        if op.kind in _JOINS:
            return op.inputs
        if op.kind in _BY_VALUES and op.inputs[0] in self.constant:  # A table, such as an embedding.
            return ()
        if op.kind in _RESHAPES or op.kind in _REORDERS or op.kind in _BY_VALUES or op.kind == "Slice":
            return op.inputs[:1]
        if op.kind in _ELEMENTWISE:
            varying = tuple(tensor for tensor in op.inputs if tensor not in self.constant)
            return varying if len(varying) == 1 else ()
        return ()

    def is_probability(self, tensor: int, depth: int = 0) -> bool:
        """Whether values are results of Sigmoid or Softmax, or products of such."""
        maker = self.makers.get(tensor)
        if maker is None or depth > len(self.names):
            return False
        if _is_probability(maker):
            return True
        if maker.kind == "BinaryOp" and settings(maker).get("opType") == _MUL:
            return all(self.is_probability(item, depth + 1) for item in maker.inputs)
        moves = maker.kind in _RESHAPES or maker.kind in _REORDERS or maker.kind in (*_SLICES, "Slice")
        return moves and self.is_probability(maker.inputs[0], depth + 1)


def _is_probability(op: Op) -> bool:
    return op.kind in ("Sigmoid", "Softmax") or (op.kind == "UnaryOp" and settings(op).get("opType") == _SIGMOID)


@dataclass(frozen=True, slots=True)
class _Path:
    """What lies between the output and a tensor."""

    joined_by: str = ""
    joined: str = ""
    is_rescaled: bool = False
    is_probability: bool = False
    behind: tuple[str, ...] = ()

    def through(self, op: Op, name: str) -> _Path:
        return _Path(
            joined_by=self.joined_by or (op.name if op.kind in _JOINS else ""),
            joined=self.joined,
            is_rescaled=self.is_rescaled or op.kind in _RESCALES,
            is_probability=self.is_probability or (_is_probability(op) and not self.is_rescaled),
            behind=(*self.behind, name),
        )


class _Places:
    def __init__(self, graph: _Graph, values: Mapping[str, Values]) -> None:
        self._graph = graph
        self._values = values
        self.parts: list[Part] = []

    def of(self, tensor: int, path: _Path) -> Places:
        """The number of the part of each element of a tensor; new parts are added to `parts`."""
        name, maker = self._graph.names[tensor], self._graph.makers.get(tensor)
        if path.joined_by and not path.joined:
            path = dataclasses.replace(path, joined=name)
        if name not in self._values:
            raise _NoParts
        shape = self._values[name].shape
        inputs = () if maker is None or tensor in self._graph.constant else self._graph.followed(maker)
        if maker is None or not inputs:
            return self._part(tensor, shape, path)
        numbers = [self.of(item, path.through(maker, name)) for item in inputs]
        try:
            if maker.kind in _BY_VALUES:
                return _numbers_by_value(self._values[name], [self._given(item) for item in inputs], numbers)
            moved = _moved(maker, numbers, shape, self._offset(maker, tensor))
        except (ValueError, IndexError):
            raise _NoParts from None
        if moved.shape != shape:
            raise _NoParts
        return moved

    def _given(self, tensor: int) -> Values:
        return self._values[self._graph.names[tensor]]

    def _part(self, tensor: int, shape: tuple[int, ...], path: _Path) -> Places:
        name = self._graph.names[tensor]
        is_bounded = path.is_probability or (not path.is_rescaled and self._graph.is_probability(tensor))
        self.parts.append(Part(name, path.joined_by, path.joined, is_bounded, (*path.behind, name)))
        if len(self.parts) > _MOST:
            raise _NoParts
        return np.full(shape, len(self.parts) - 1, np.int32)

    def _offset(self, op: Op, tensor: int) -> int:
        """Where the values of a tensor begin along the axis of the Slice that makes it."""
        if op.kind != "Slice":
            return 0
        axis = int(_number(op, "axis"))
        earlier = op.outputs[: op.outputs.index(tensor)]
        names = [self._graph.names[item] for item in earlier]
        if not all(name in self._values for name in names):
            raise _NoParts
        return sum(self._values[name].shape[axis] for name in names)


def _numbers_by_value(made: Values, given: list[Values], numbers: list[Places]) -> Places:
    """The number of each element: that of the element of an input with the same value.

    Of a value that several parts hold, such as 0, it is the first one's. Raises `_NoParts` if there are many of them.
    """
    if any(array.shape != places.shape for array, places in zip(given, numbers, strict=True)):
        raise _NoParts
    values, known = (np.concatenate([array.reshape(-1) for array in arrays]) for arrays in (given, numbers))
    unique, places = np.unique(values, return_inverse=True)
    first, last = np.full(len(unique), np.iinfo(np.int32).max), np.full(len(unique), -1)
    np.minimum.at(first, places, known)
    np.maximum.at(last, places, known)
    positions = np.minimum(np.searchsorted(unique, made.reshape(-1)), len(unique) - 1)
    is_clear = (unique[positions] == made.reshape(-1)) & (first[positions] == last[positions])
    if is_clear.mean() < _CLEAR:
        raise _NoParts
    return first[positions].reshape(made.shape).astype(np.int32)


def _moved(op: Op, numbers: list[Places], shape: tuple[int, ...], offset: int) -> Places:
    """The numbers of the inputs, moved as the operator moves its values. Raises `ValueError` if they do not fit."""
    first = numbers[0]
    if op.kind == "Concat":
        return np.concatenate(numbers, int(_number(op, "axis")))
    if op.kind == "Pack":
        return np.stack(numbers, int(_number(op, "axis")))
    if op.kind == "Slice":
        axis = int(_number(op, "axis"))
        return np.take(first, range(offset, offset + shape[axis]), axis)
    if op.kind in _RESHAPES:
        return first.reshape(shape)
    if op.kind in _REORDERS:
        return _reordered(op, first, shape)
    return np.broadcast_to(first, shape)


def _reordered(op: Op, numbers: Places, shape: tuple[int, ...]) -> Places:
    axes = settings(op).get("dims")
    if isinstance(axes, tuple) and len(axes) == numbers.ndim:
        return numbers.transpose(axes)
    if numbers.shape == shape or (numbers == numbers.flat[0]).all():
        return np.broadcast_to(numbers.flat[0], shape) if numbers.shape != shape else numbers
    for order in _CHANNELS_LAST if numbers.ndim == 4 and op.kind == "ConvertTensor" else ():
        if numbers.transpose(order).shape == shape:
            return numbers.transpose(order)
    raise _NoParts


def _number(op: Op, name: str) -> Any:
    return settings(op).get(name, 0)
