"""Checks of an ONNX file that MNN's converter omits: that its external data exist, that it is not quantized.

Numbers of fields, of onnx.proto: ModelProto.graph 7, training_info 20 (initialization 1, algorithm 2), functions 25
(node 7); GraphProto.node 1, initializer 5, sparse_initializer 15; NodeProto.output 2, name 3, op_type 4, attribute 5,
domain 7; AttributeProto.t 5, g 6, tensors 10, graphs 11, sparse_tensor 22, sparse_tensors 23; SparseTensorProto.values
1, indices 2; TensorProto.external_data 13, data_location 14.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from pytest_mnnquant.mnnfile.wire import BadParams, fields
from pytest_mnnquant.sources.spec import QuantizedSource, SourceError

_EXTERNAL: Final = 1
# Weights that are only stored as integers have a DequantizeLinear and none of these. Measured with MNN 3.6.1: on these
# operators the converter crashes, writes nothing, or loses the weights of the layers.
_QUANTIZED: Final = re.compile(rb"Q(?:uantize)?Linear\w*|DynamicQuantizeLinear|(?:Conv|MatMul)Integer|QGemm")


def require_float(path: Path) -> None:
    """Raise `QuantizedSource` if an ONNX file computes in integers."""
    counts: Counter[str] = Counter()
    try:
        for graph in _messages(path.read_bytes(), 7):
            counts.update(kind.decode() for kind in _operators(graph) if _QUANTIZED.fullmatch(kind))
    except (BadParams, ValueError):
        return  # The conversion reports files that are not ONNX.
    if counts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(3))
        raise QuantizedSource(
            f"{path.name} is quantized already ({kinds}), by a tool whose operators MNN does not import"
        )


def first_operator(path: Path, kinds: Collection[str]) -> tuple[str, str]:
    """The first operator of an ONNX file whose kind is one of these: (its kind with its domain, its name).

    An operator without a name has that of its first output. Empty if there is none.
    """
    try:
        for graph in _messages(path.read_bytes(), 7):
            for node in _nodes(graph):
                kind, domain, name, output = (_first_text(node, number) for number in (4, 7, 3, 2))
                if kind in kinds:
                    return f"{domain}.{kind}" if domain else kind, name or output
    except (BadParams, ValueError):
        pass
    return "", ""


def external_files(path: Path) -> tuple[Path, ...]:
    """The files that hold tensors of an ONNX file, in order of their names.

    Raises `SourceError` if one is missing, too short, or outside of the file's folder.
    """
    sizes = _external_sizes(path)
    for location, size in sizes.items():
        if _leaves_folder(location):
            raise SourceError(
                f"{path}: names the external file {location!r}, which is not in the folder of the model",
                f"save the model again with its weights in the folder of {path.name}",
            )
        place = path.parent / location
        has = place.stat().st_size if place.is_file() else None
        if has is None or has < size:
            state = "is missing" if has is None else f"has {has:,} bytes"
            raise SourceError(
                f"{path}: needs {location} in its folder, of at least {size:,} bytes; that file {state}",
                f"copy {location} into the folder of {path.name}",
            )
    return tuple(path.parent / location for location in sorted(sizes))


def _leaves_folder(location: str) -> bool:
    parts = PurePosixPath(location.replace("\\", "/"))
    return not location or "\0" in location or parts.is_absolute() or ".." in parts.parts


def _external_sizes(path: Path) -> dict[str, int]:
    """The bytes that are needed of each external file; empty for a file that is not ONNX: the conversion reports it."""
    needed: dict[str, int] = {}
    try:
        for location, end in _in_model(path.read_bytes()):
            needed[location] = max(end, needed.get(location, 0))
    except (BadParams, ValueError):
        return {}
    return needed


def takes_any_batch(path: Path) -> bool:
    """Whether an ONNX file declares inputs with a first axis of any size."""
    try:
        graphs = list(_messages(path.read_bytes(), 7))
        initializers = {name for graph in graphs for tensor in _messages(graph, 5) for name in _messages(tensor, 8)}
        inputs = [item for graph in graphs for item in _messages(graph, 11)]
        firsts = [_first_axis(item) for item in inputs if initializers.isdisjoint(_messages(item, 1))]
    except (BadParams, ValueError):
        return False
    return bool(firsts) and all(size is None for size in firsts)


def _first_axis(value: bytes) -> int | None:
    """The first axis of a declared input; None if its size is open, 0 without axes."""
    for kind in _messages(value, 2):
        for tensor in _messages(kind, 1):
            for shape in _messages(tensor, 2):
                for axis in _messages(shape, 1):
                    sizes = [field.value for field in fields(axis) if field.number == 1]
                    return int(sizes[0]) if sizes and isinstance(sizes[0], int) and sizes[0] > 0 else None
    return 0


def _messages(message: bytes, number: int) -> Iterator[bytes]:
    return (field.value for field in fields(message) if field.number == number and isinstance(field.value, bytes))


def _nodes(graph: bytes) -> Iterator[bytes]:
    """The operators, including those in the bodies of loops."""
    for node in _messages(graph, 1):
        yield node
        for attribute in _messages(node, 5):
            for body in _messages(attribute, 6):
                yield from _nodes(body)


def _operators(graph: bytes) -> Iterator[bytes]:
    return (kind for node in _nodes(graph) for kind in _messages(node, 4))


def _first_text(message: bytes, number: int) -> str:
    return next(_messages(message, number), b"").decode("utf-8", "replace")


def _in_model(model: bytes) -> Iterator[tuple[str, int]]:
    """(file, last byte needed) of each external tensor, including those in functions and in the bodies of loops."""
    for graph in _messages(model, 7):
        yield from _in_graph(graph)
    for training in _messages(model, 20):
        for number in (1, 2):
            for graph in _messages(training, number):
                yield from _in_graph(graph)
    for function in _messages(model, 25):
        for node in _messages(function, 7):
            yield from _in_node(node)


def _in_graph(graph: bytes) -> Iterator[tuple[str, int]]:
    for tensor in _messages(graph, 5):
        yield from _external(tensor)
    for sparse in _messages(graph, 15):
        yield from _in_sparse(sparse)
    for node in _messages(graph, 1):
        yield from _in_node(node)


def _in_node(node: bytes) -> Iterator[tuple[str, int]]:
    readers = {5: _external, 10: _external, 6: _in_graph, 11: _in_graph, 22: _in_sparse, 23: _in_sparse}
    for attribute in _messages(node, 5):
        for number, read in readers.items():
            for value in _messages(attribute, number):
                yield from read(value)


def _in_sparse(sparse: bytes) -> Iterator[tuple[str, int]]:
    for number in (1, 2):
        for tensor in _messages(sparse, number):
            yield from _external(tensor)


def _external(tensor: bytes) -> Iterator[tuple[str, int]]:
    # Field 9 holds the values of other tensors: there is nothing to check.
    if not any(field.number == 14 and field.value == _EXTERNAL for field in fields(tensor)):
        return
    entries = {}
    for entry in _messages(tensor, 13):
        key, value = (b"".join(_messages(entry, number)).decode("utf-8", "replace") for number in (1, 2))
        entries[key] = value
    if "location" in entries:
        yield entries["location"], int(entries.get("offset", "0")) + int(entries.get("length", "0"))
