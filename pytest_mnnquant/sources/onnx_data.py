"""The files beside an ONNX file that hold its tensors: MNN's converter does not notice that they are missing.

Numbers of fields, of onnx.proto: ModelProto.graph 7, training_info 20 (initialization 1, algorithm 2), functions 25
(node 7); GraphProto.node 1, initializer 5, sparse_initializer 15; NodeProto.attribute 5; AttributeProto.t 5, g 6,
tensors 10, graphs 11, sparse_tensor 22, sparse_tensors 23; SparseTensorProto.values 1, indices 2;
TensorProto.external_data 13, data_location 14.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from pytest_mnnquant.mnnfile.wire import BadParams, fields
from pytest_mnnquant.sources.onnx_file import messages
from pytest_mnnquant.sources.spec import SourceError

_EXTERNAL: Final = 1


def external_files(path: Path) -> tuple[Path, ...]:
    """The files that hold tensors of an ONNX file, in order of their names.

    Raises `SourceError` if one is missing, too short, or outside of the file's folder, or if the list can't be read.
    """
    try:
        sizes = _external_sizes(path)
    except RecursionError:
        raise SourceError(f"{path}: bodies of operators are nested too deeply") from None
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
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from None
    return needed


def _in_model(model: bytes) -> Iterator[tuple[str, int]]:
    """(file, last byte needed) of each external tensor, including those in functions and in the bodies of loops."""
    for graph in messages(model, 7):
        yield from _in_graph(graph)
    for training in messages(model, 20):
        for number in (1, 2):
            for graph in messages(training, number):
                yield from _in_graph(graph)
    for function in messages(model, 25):
        for node in messages(function, 7):
            yield from _in_node(node)


def _in_graph(graph: bytes) -> Iterator[tuple[str, int]]:
    for tensor in messages(graph, 5):
        yield from _external(tensor)
    for sparse in messages(graph, 15):
        yield from _in_sparse(sparse)
    for node in messages(graph, 1):
        yield from _in_node(node)


def _in_node(node: bytes) -> Iterator[tuple[str, int]]:
    readers = {5: _external, 10: _external, 6: _in_graph, 11: _in_graph, 22: _in_sparse, 23: _in_sparse}
    for attribute in messages(node, 5):
        for number, read in readers.items():
            for value in messages(attribute, number):
                yield from read(value)


def _in_sparse(sparse: bytes) -> Iterator[tuple[str, int]]:
    for number in (1, 2):
        for tensor in messages(sparse, number):
            yield from _external(tensor)


def _external(tensor: bytes) -> Iterator[tuple[str, int]]:
    # Field 9 holds the values of other tensors: there is nothing to check.
    if not any(field.number == 14 and field.value == _EXTERNAL for field in fields(tensor)):
        return
    entries = {}
    for entry in messages(tensor, 13):
        key, value = (b"".join(messages(entry, number)).decode("utf-8", "replace") for number in (1, 2))
        entries[key] = value
    if "location" in entries:
        yield entries["location"], _number(entries, "offset") + _number(entries, "length")


def _number(entries: dict[str, str], key: str) -> int:
    """A number of bytes. Raises `SourceError`: MNN takes other texts for any number."""
    text = entries.get(key) or "0"
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise SourceError(f"the {key} of the external tensor in {entries['location']!r} is {text[:40]!r}, not a size")
    return int(text)
