"""Which channels of a model's tensors can be scaled together without a change of the model's function.

A convolution's output channel can be divided by any factor above 0 if the weights that read it are multiplied by it.
ReLU, PReLU, pools and resizes pass a factor on (f(a x) = a f(x) for a > 0). An addition requires the same factor of
both sides; a concatenation has the factors of its parts, and so has a slice, as which MNN stores a grouped convolution:
slices, convolutions, a concatenation. All other operators fix the factor to 1: a ReLU6 clips at 6, and a hard-swish is
not proportional (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.1). An added multiplication by a
constant (`products`) separates the factors before it from those after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.products import FACTORS, Product
from pytest_mnnquant.mnnfile.rewriting import is_rewritable
from pytest_mnnquant.mnnfile.settings import settings

Classes = npt.NDArray[np.int64]
#: The class of channels whose factor is 1.
FIXED: Final = 0
_PASSING: Final = frozenset({"ReLU", "PReLU", "Pooling", "Interp", "Resize", "ConvertTensor"})
#: The arithmetic and the activation of a BinaryOp: none, or a ReLU.
_SUMS: Final = frozenset({(0, 0), (0, 1), (1, 0), (1, 1)})
_PRODUCTS: Final = frozenset({(2, 0), (2, 1)})
_NHWC: Final = 1
_MEANS: Final = frozenset({0, 3, 4, 5})  # Reduction: sum, mean, maximum, minimum keep positive factors.
_SHAPES: Final = frozenset({"Shape", "Rank", "Size"})
_DIMENSIONS: Final = 4


@dataclass(frozen=True)
class ChannelClasses:
    """The class of each channel, by tensor index: channels of a class have one factor, those of `FIXED` have 1.

    `layers` are the convolutions whose weights change with the factors of their inputs and outputs. `products` are
    the added multiplications, whose constants change with them.
    """

    tensors: dict[int, Classes]
    layers: tuple[Op, ...]
    products: tuple[Op, ...] = ()

    @property
    def free(self) -> tuple[int, ...]:
        """The classes that may have a factor."""
        present = {int(item) for classes in self.tensors.values() for item in classes}
        return tuple(sorted(present - {FIXED}))


def channel_classes(model: Model) -> ChannelClasses:
    """The classes of the channels of all tensors of the main graph that a convolution's output reaches."""
    finder = _Finder(model)
    products = [op for op in model.ops if not finder.add(op)]
    for op in products:
        finder.multiply(op)
    finder.fix_outputs()
    return ChannelClasses(finder.classes(), tuple(finder.layers), tuple(finder.added))


def scaling_places(model: Model) -> tuple[Product, ...]:
    """The multiplications that would separate fixed channels from layers, so that these channels may have factors.

    They are behind convolutions whose outputs are fixed, in front of what fixes them, and in front of layers whose
    inputs are fixed.
    """
    classes = channel_classes(model)
    makers = {op.outputs[0]: op for op in model.ops if op.outputs and not op.subgraph}
    layers = {op.outputs[0]: op for op in classes.layers}
    readers: dict[int, list[Op]] = {}
    for op in model.ops:
        for tensor in () if op.subgraph else dict.fromkeys(op.inputs):
            readers.setdefault(tensor, []).append(op)
    places = []
    for tensor, read in readers.items():
        name = model.tensor_names[tensor]
        is_layer = tensor in layers
        if not _is_fixed(classes, tensor) or name in model.output_names or tensor not in makers:
            continue
        chosen = [op for op in read if (op.outputs[0] in layers and op.inputs[0] == tensor) != is_layer]
        channels = {input_channels(op) for op in chosen} if not is_layer else {layers[tensor].shape[0]}
        if chosen and len(channels) == 1 and not (is_layer and has_fused_limit(layers[tensor])):
            places.append(Product(tensor, name, channels.pop(), frozenset(op.outputs[0] for op in chosen)))
    return tuple(places)


def has_fused_limit(op: Op) -> bool:
    """Whether a convolution clips its output at 6."""
    return bool(settings(op).get("relu6"))


def _is_fixed(classes: ChannelClasses, tensor: int) -> bool:
    ids = classes.tensors.get(tensor)
    return ids is None or bool((ids == FIXED).all())


def input_channels(op: Op) -> int:
    """The channels of a convolution's input."""
    return filter_inputs(op).size // op.shape[0] * max(1, op.group)


def filter_inputs(op: Op) -> Classes:
    """The input channel that each filter of a convolution reads at each place; shape [filters, channels per group]."""
    filters, _, *kernel = op.shape
    read = op.weights[0].count // (filters * math.prod(kernel))
    groups = np.arange(filters) // max(1, filters // max(1, op.group))
    return groups[:, None] * read + np.arange(read)


def is_depthwise(op: Op) -> bool:
    """Whether each output channel of a convolution reads its input channel only."""
    return op.kind == "ConvolutionDepthwise"


def _arithmetic(op: Op) -> tuple[object, object]:
    found = settings(op)
    return found.get("opType"), found.get("activationType")


def _parts(op: Op, channels: Classes) -> list[Classes]:
    """The channels of each output of a slice along the channels; empty for other slices.

    MNN stores where parts begin, the sizes of the parts, or nothing if they are equal.
    """
    found, count = settings(op), len(op.outputs)
    points = found["slicePoints"]
    if found["axis"] != 1 or not isinstance(points, tuple) or len(channels) % (1 if points else count):
        return []
    if not points:
        return np.split(channels, count)
    ends = np.cumsum(points) if len(points) == count else np.array([*points, len(channels)])
    if len(ends) != count or ends[-1] != len(channels) or (np.diff(ends, prepend=0) <= 0).any():
        return []
    return np.split(channels, ends[:-1])


class _Finder:
    """Joins channels that need one factor (union-find; the roots are the classes)."""

    def __init__(self, model: Model) -> None:
        self._model, self._parents = model, [FIXED]
        self._tensors: dict[int, Classes] = {}
        self._constants = {op.outputs[0]: op for op in model.ops if op.kind == "Const" and not op.subgraph}
        self.layers: list[Op] = []
        self.added: list[Op] = []

    def add(self, op: Op) -> bool:
        """Join the channels that an operator of the main graph connects; False if it is a product, which waits."""
        inputs = [self._tensors.get(tensor) for tensor in op.inputs]
        if op.subgraph or op.kind in _SHAPES:
            pass  # The tensors of a subgraph are numbered separately.
        elif op.is_convolution:
            self._convolve(op, inputs)
        elif op.kind in _PASSING or self._is_mean(op):
            self._pass(op, inputs[:1])
        elif op.kind == "BinaryOp" and self._is_added(op):
            self.added.append(op)
            self._tensors[op.outputs[0]] = self._new(self._constants[op.inputs[1]].shape[1])
        elif op.kind == "BinaryOp" and _arithmetic(op) in _PRODUCTS:
            known = next((item for item in inputs if item is not None), None)
            if known is not None:
                self._tensors[op.outputs[0]] = self._new(len(known))
            return False
        elif self._is_sum(op):
            self._pass(op, inputs)
        elif op.kind == "Concat" and settings(op).get("axis") == 1 and all(item is not None for item in inputs):
            self._tensors[op.outputs[0]] = np.concatenate([item for item in inputs if item is not None])
        elif op.kind == "Slice" and inputs[0] is not None and (parts := _parts(op, inputs[0])):
            self._tensors |= dict(zip(op.outputs, parts, strict=True))
        else:
            self._fix(inputs)
        return True

    def _is_added(self, op: Op) -> bool:
        """Whether `mnnfile.products` added this multiplication."""
        return op.input_names[-1].endswith(FACTORS) and op.inputs[-1] in self._constants

    def multiply(self, op: Op) -> None:
        """Join the output of a product with the side that is not fixed; one side must be fixed."""
        sides = [self._tensors.get(tensor) for tensor in op.inputs]
        output = self._tensors.get(op.outputs[0])
        free = [side for side in sides if side is not None and not self._is_fixed(side)]
        self._fix(free[1:])
        if free and output is not None and len(free[0]) == len(output):
            self._join(free[0], output)
        else:
            self._fix([*free, output])

    def fix_outputs(self) -> None:
        """Fix the outputs of the model, and the tensors that bodies of loops and conditions read."""
        names = self._model.tensor_names
        for tensor, classes in self._tensors.items():
            if names[tensor] in self._model.output_names:
                self._fix([classes])

    def classes(self) -> dict[int, Classes]:
        """The class of each channel."""
        return {tensor: np.array([self._root(int(item)) for item in ids]) for tensor, ids in self._tensors.items()}

    def _convolve(self, op: Op, inputs: Sequence[Classes | None]) -> None:
        is_plain = op.kind in ("Convolution", "ConvolutionDepthwise") and is_rewritable(op)
        read = input_channels(op) if is_plain else 0
        if not is_plain or len(inputs) != 1 or len(op.outputs) != 1:
            self._fix(inputs)
            return
        before = inputs[0]
        if before is not None and len(before) != read:
            self._fix(inputs)
        self.layers.append(op)
        self._tensors[op.outputs[0]] = self._new(op.shape[0])
        if has_fused_limit(op):
            self._fix([self._tensors[op.outputs[0]]])

    def _pass(self, op: Op, inputs: Sequence[Classes | None]) -> None:
        """The output has the factors of all inputs, which are equal."""
        first = inputs[0] if inputs else None
        is_last = op.kind == "ConvertTensor" and op.parameters is not None and op.parameters.scalar(1, "u8") == _NHWC
        if is_last or first is None or any(item is None or len(item) != len(first) for item in inputs):
            self._fix(inputs)
            return
        for item in inputs[1:]:
            assert item is not None
            self._join(first, item)
        for tensor in op.outputs:
            self._tensors[tensor] = first

    def _is_sum(self, op: Op) -> bool:
        is_binary = op.kind == "BinaryOp" and _arithmetic(op) in _SUMS
        # With coefficients an Eltwise is not a plain sum.
        is_eltwise = op.kind == "Eltwise" and settings(op).get("type") == 1
        return is_binary or (is_eltwise and op.parameters is not None and not op.parameters.span(1, 4)[1])

    def _is_mean(self, op: Op) -> bool:
        """Whether this is a mean (sum, maximum, minimum) over height and width that keeps the four dimensions."""
        if op.kind != "Reduction":
            return False
        found = settings(op)
        given = self._constants.get(op.inputs[1]) if len(op.inputs) > 1 else None
        axes = found["dim"] if given is None else settings(given).get("values", ())
        spatial = isinstance(axes, tuple) and axes and all(axis % _DIMENSIONS > 1 for axis in axes)
        return bool(spatial and found["keepDims"] and found["operation"] in _MEANS)

    def _new(self, count: int) -> Classes:
        start = len(self._parents)
        self._parents += range(start, start + count)
        return np.arange(start, start + count)

    def _root(self, item: int) -> int:
        while self._parents[item] != item:
            self._parents[item] = self._parents[self._parents[item]]
            item = self._parents[item]
        return item

    def _join(self, first: Classes, second: Classes) -> None:
        for channel, other in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self._root(channel), self._root(other)))
            self._parents[high] = low  # So FIXED stays the root of its class.

    def _fix(self, tensors: Iterable[Classes | None]) -> None:
        for classes in tensors:
            if classes is not None:
                self._join(np.zeros_like(classes), classes)

    def _is_fixed(self, classes: Classes) -> bool:
        return all(self._root(int(item)) == FIXED for item in classes)
