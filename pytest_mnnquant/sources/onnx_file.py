"""Reads an ONNX file: whether it computes in integers, its operators, and what it declares of its inputs.

Numbers of fields, of onnx.proto: ModelProto.graph 7, functions 25; GraphProto.node 1, initializer 5, input 11;
NodeProto.output 2, name 3, op_type 4, attribute 5, domain 7; AttributeProto.g 6; FunctionProto.name 1;
ValueInfoProto.name 1, type 2; TypeProto.tensor_type 1; TypeProto.Tensor.shape 2; TensorShapeProto.dim 1;
Dimension.dim_value 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.wire import BadParams, fields
from pytest_mnnquant.sources.spec import QuantizedSource

# Weights that are only stored as integers have a DequantizeLinear and none of these. Measured with MNN 3.6.1: on these
# operators the converter crashes, writes nothing, or loses the weights of the layers.
_QUANTIZED: Final = re.compile(rb"Q(?:uantize)?Linear\w*|DynamicQuantizeLinear|(?:Conv|MatMul)Integer|QGemm")


def require_float(path: Path) -> None:
    """Raise `QuantizedSource` if an ONNX file computes in integers."""
    counts: Counter[str] = Counter()
    try:
        for graph in messages(path.read_bytes(), 7):
            counts.update(kind.decode() for kind in _operators(graph) if _QUANTIZED.fullmatch(kind))
    except (BadParams, ValueError):
        return  # The conversion reports files that are not ONNX.
    if counts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(3))
        raise QuantizedSource(
            f"{path.name} is quantized already ({kinds}), by a tool whose operators MNN does not import"
        )


def integer_weights(path: Path) -> int:
    """The number of weights that an ONNX file stores as integers and converts to float itself (DequantizeLinear)."""
    try:
        kinds = [kind for graph in messages(path.read_bytes(), 7) for kind in _operators(graph)]
    except (BadParams, ValueError):
        return 0
    return kinds.count(b"DequantizeLinear")


def local_functions(path: Path) -> frozenset[str]:
    """The kinds of operators that an ONNX file defines itself, by functions."""
    try:
        return frozenset(_first_text(function, 1) for function in messages(path.read_bytes(), 25))
    except (BadParams, ValueError):
        return frozenset()


def first_operator(path: Path, kinds: Collection[str]) -> tuple[str, str]:
    """The first operator of an ONNX file whose kind is one of these: (its kind with its domain, its name).

    An operator without a name has that of its first output. Empty if there is none.
    """
    try:
        for graph in messages(path.read_bytes(), 7):
            for node in _nodes(graph):
                kind, domain, name, output = (_first_text(node, number) for number in (4, 7, 3, 2))
                if kind in kinds:
                    return f"{domain}.{kind}" if domain else kind, name or output
    except (BadParams, ValueError):
        pass
    return "", ""


def takes_any_batch(path: Path) -> bool:
    """Whether an ONNX file declares inputs with a first axis of any size."""
    try:
        graphs = list(messages(path.read_bytes(), 7))
        initializers = {name for graph in graphs for tensor in messages(graph, 5) for name in messages(tensor, 8)}
        inputs = [item for graph in graphs for item in messages(graph, 11)]
        firsts = [_first_axis(item) for item in inputs if initializers.isdisjoint(messages(item, 1))]
    except (BadParams, ValueError):
        return False
    return bool(firsts) and all(size is None for size in firsts)


def inputs_of_any_shape(path: Path) -> frozenset[str]:
    """The inputs for which an ONNX file declares no shape at all. Scalars have a shape without axes."""
    try:
        inputs = [item for graph in messages(path.read_bytes(), 7) for item in messages(graph, 11)]
        return frozenset(_first_text(item, 1) for item in inputs if not list(_shapes(item)))
    except (BadParams, ValueError):
        return frozenset()


def graph_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the inputs and of the outputs of an ONNX file, in order; empty if it can't be read."""
    try:
        graphs = list(messages(path.read_bytes(), 7))
        stored = {_first_text(item, 8) for graph in graphs for item in messages(graph, 5)}
        inputs, outputs = (
            tuple(_first_text(item, 1) for graph in graphs for item in messages(graph, field)) for field in (11, 12)
        )
    except (BadParams, ValueError, OSError):
        return (), ()
    return tuple(name for name in inputs if name not in stored), outputs


def _shapes(value: bytes) -> Iterator[bytes]:
    """The shape of a declared input, if there is one."""
    return (shape for kind in messages(value, 2) for tensor in messages(kind, 1) for shape in messages(tensor, 2))


def _first_axis(value: bytes) -> int | None:
    """The first axis of a declared input; None if its size is open, 0 without axes."""
    for shape in _shapes(value):
        for axis in messages(shape, 1):
            sizes = [field.value for field in fields(axis) if field.number == 1]
            return int(sizes[0]) if sizes and isinstance(sizes[0], int) and sizes[0] > 0 else None
    return 0


def _nodes(graph: bytes) -> Iterator[bytes]:
    """The operators, including those in the bodies of loops."""
    for node in messages(graph, 1):
        yield node
        for attribute in messages(node, 5):
            for body in messages(attribute, 6):
                yield from _nodes(body)


def _operators(graph: bytes) -> Iterator[bytes]:
    return (kind for node in _nodes(graph) for kind in messages(node, 4))


def _first_text(message: bytes, number: int) -> str:
    return next(messages(message, number), b"").decode("utf-8", "replace")


def messages(message: bytes, number: int) -> Iterator[bytes]:
    """The parts of a message that a field holds, as bytes."""
    return (field.value for field in fields(message) if field.number == number and isinstance(field.value, bytes))
