"""Which channels of a model's tensors can be scaled together without a change of the model's function.

A convolution's output channel can be divided by any factor above 0 if the weights that read it are multiplied by it.
ReLU, PReLU, pools and resizes pass a factor on (f(a x) = a f(x) for a > 0). An addition requires the same factor of
both sides; a concatenation has the factors of its parts, and so has a slice, as which MNN stores a grouped convolution:
slices, convolutions, a concatenation. Squeeze and Unsqueeze pass factors on behind the channels, as around layers of
one dimension, and so does the PReLU that MNN stores as x * (x < 0 ? slope : 1). All other operators fix the factor to
1: a ReLU6 clips at 6, and a hard-swish is not proportional (Nagel et al. 2019, https://arxiv.org/abs/1906.04721,
section 4.1); in a concatenation they fix their own part only. An added multiplication by a constant (`products`)
separates the factors before it from those after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pytest_mnnquant.mnnfile.channel_joins import FIXED, ChannelJoins, Classes
from pytest_mnnquant.mnnfile.channel_operators import (
    compares_with_zero,
    is_concatenation,
    is_mean,
    is_product,
    is_sum,
    slice_parts,
    squeezed_rank,
)
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.products import FACTORS, Product
from pytest_mnnquant.mnnfile.rewriting import is_rewritable
from pytest_mnnquant.mnnfile.settings import settings

_PASSING: Final = frozenset({"ReLU", "PReLU", "Pooling", "Interp", "Resize", "ConvertTensor"})
#: Operators that are not proportional: their outputs have as many channels, whose factors are 1.
_POINTWISE: Final = frozenset({"UnaryOp", "Sigmoid", "TanH", "ReLU6"})
_NHWC: Final = 1
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


class _Finder:
    """Joins the channels that need one factor, operator by operator."""

    def __init__(self, model: Model) -> None:
        self._model, self._joins = model, ChannelJoins()
        self._tensors: dict[int, Classes] = {}
        self._ranks: dict[int, int] = {}  # Of tensors with classes; 4 if not listed.
        self._constants = {op.outputs[0]: op for op in model.ops if op.kind == "Const" and not op.subgraph}
        self.layers: list[Op] = []
        self.added: list[Op] = []

    def add(self, op: Op) -> bool:
        """Join the channels that an operator of the main graph connects; False if it is a product, which waits."""
        inputs = [self._tensors.get(tensor) for tensor in op.inputs]
        if op.subgraph or op.kind in _SHAPES or compares_with_zero(op, self._constants):
            pass  # The tensors of a subgraph are numbered separately. A factor above 0 keeps the sign.
        elif op.is_convolution:
            self._convolve(op, inputs)
        elif op.kind == "BinaryOp" and self._is_added(op):
            self.added.append(op)
            self._tensors[op.outputs[0]] = self._joins.new(self._constants[op.inputs[1]].shape[1])
        elif is_product(op) and self._has_one_rank(op):
            widest = max((len(item) for item in inputs if item is not None), default=0)
            if widest > 1 or all(item is not None for item in inputs):
                self._put(op, self._joins.new(widest))
            return False
        else:
            self._add_passing(op, inputs)
        return True

    def _add_passing(self, op: Op, inputs: Sequence[Classes | None]) -> None:
        """Join the channels of an operator whose outputs have the channels of its inputs."""
        rank = self._rank(op)
        if op.kind in _PASSING or is_mean(op, self._constants, rank):
            self._pass(op, inputs[:1])
        elif new_rank := squeezed_rank(op, rank):
            self._pass(op, inputs[:1])
            self._ranks |= dict.fromkeys(op.outputs, new_rank)
        elif is_sum(op) and self._has_one_rank(op):
            self._pass(op, inputs)
        elif is_concatenation(op) and all(item is not None for item in inputs):
            self._put(op, np.concatenate([item for item in inputs if item is not None]))
        elif op.kind == "Slice" and inputs[0] is not None and (parts := slice_parts(op, inputs[0])):
            self._put(op, *parts)
        else:
            self._joins.fix(inputs)
            if op.kind in _POINTWISE and inputs[0] is not None:
                self._put(op, np.zeros_like(inputs[0]))

    def _is_added(self, op: Op) -> bool:
        """Whether `mnnfile.products` added this multiplication."""
        return op.input_names[-1].endswith(FACTORS) and op.inputs[-1] in self._constants

    def multiply(self, op: Op) -> None:
        """Join the output of a product with the side that is not fixed; one side must be fixed."""
        sides = [self._tensors.get(tensor) for tensor in op.inputs]
        output = self._tensors.get(op.outputs[0])
        free = [side for side in sides if side is not None and not self._joins.is_fixed(side)]
        self._joins.fix(free[1:])
        if free and output is not None and len(free[0]) == len(output):
            self._joins.join(free[0], output)
        else:
            self._joins.fix([*free, output])

    def fix_outputs(self) -> None:
        """Fix the outputs of the model, and the tensors that bodies of loops and conditions read."""
        names = self._model.tensor_names
        for tensor, classes in self._tensors.items():
            if names[tensor] in self._model.output_names:
                self._joins.fix([classes])

    def classes(self) -> dict[int, Classes]:
        """The class of each channel."""
        return {
            tensor: np.array([self._joins.root(int(item)) for item in ids]) for tensor, ids in self._tensors.items()
        }

    def _convolve(self, op: Op, inputs: Sequence[Classes | None]) -> None:
        is_plain = op.kind in ("Convolution", "ConvolutionDepthwise") and is_rewritable(op)
        read = input_channels(op) if is_plain else 0
        if not is_plain or len(inputs) != 1 or len(op.outputs) != 1:
            self._joins.fix(inputs)
            if len(op.outputs) == 1 and op.shape:
                self._tensors[op.outputs[0]] = np.full(op.shape[0], FIXED)
            return
        before = inputs[0]
        if before is not None and len(before) != read:
            self._joins.fix(inputs)
        self.layers.append(op)
        self._tensors[op.outputs[0]] = self._joins.new(op.shape[0])
        if has_fused_limit(op):
            self._joins.fix([self._tensors[op.outputs[0]]])

    def _pass(self, op: Op, inputs: Sequence[Classes | None]) -> None:
        """The output has the factors of all inputs, which are equal."""
        first = inputs[0] if inputs else None
        is_last = op.kind == "ConvertTensor" and op.parameters is not None and op.parameters.scalar(1, "u8") == _NHWC
        if is_last or first is None or any(item is None or len(item) != len(first) for item in inputs):
            self._joins.fix(inputs)
            return
        for item in inputs[1:]:
            assert item is not None
            self._joins.join(first, item)
        self._put(op, *(first,) * len(op.outputs))

    def _put(self, op: Op, *classes: Classes) -> None:
        """Set the classes of an operator's outputs, which have as many dimensions as its inputs."""
        self._tensors |= dict(zip(op.outputs, classes, strict=True))
        self._ranks |= dict.fromkeys(op.outputs, self._rank(op))

    def _rank(self, op: Op) -> int:
        """The number of dimensions of the first input with classes."""
        return next((self._ranks.get(item, _DIMENSIONS) for item in op.inputs if item in self._tensors), _DIMENSIONS)

    def _has_one_rank(self, op: Op) -> bool:
        """Whether the inputs with classes have as many dimensions each, so that their channels meet."""
        return len({self._ranks.get(item, _DIMENSIONS) for item in op.inputs if item in self._tensors}) < 2
