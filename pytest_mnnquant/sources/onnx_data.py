"""Checks of an ONNX file that MNN's converter omits: that its external data exist, that it is not quantized.

Numbers of fields, of onnx.proto: ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.op_type 4,
attribute 5; AttributeProto.t 5, g 6; TensorProto.external_data 13, data_location 14.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
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


def require_external_data(path: Path) -> None:
    """Raise `SourceError` if tensors of an ONNX file lie in a file that is missing or too short."""
    needed: dict[str, int] = {}
    try:
        for location, end in (tensor for graph in _messages(path.read_bytes(), 7) for tensor in _in_graph(graph)):
            needed[location] = max(end, needed.get(location, 0))
    except (BadParams, ValueError):
        return  # The conversion reports files that are not ONNX.
    for location, size in needed.items():
        place = path.parent / location
        has = place.stat().st_size if place.is_file() else None
        if has is None or has < size:
            state = "is missing" if has is None else f"has {has:,} bytes"
            raise SourceError(
                f"{path}: needs {location} in its folder, of at least {size:,} bytes; that file {state}",
                f"copy {location} into the folder of {path.name}",
            )


def _messages(message: bytes, number: int) -> Iterator[bytes]:
    return (field.value for field in fields(message) if field.number == number and isinstance(field.value, bytes))


def _operators(graph: bytes) -> Iterator[bytes]:
    """The kind of each operator, including those in the bodies of loops."""
    for node in _messages(graph, 1):
        yield from _messages(node, 4)
        for attribute in _messages(node, 5):
            for body in _messages(attribute, 6):
                yield from _operators(body)


def _in_graph(graph: bytes) -> Iterator[tuple[str, int]]:
    """(file, last byte needed) of each external tensor, including those in the bodies of loops."""
    for tensor in _messages(graph, 5):
        yield from _external(tensor)
    for attribute in (attribute for node in _messages(graph, 1) for attribute in _messages(node, 5)):
        for tensor in _messages(attribute, 5):
            yield from _external(tensor)
        for body in _messages(attribute, 6):
            yield from _in_graph(body)


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
