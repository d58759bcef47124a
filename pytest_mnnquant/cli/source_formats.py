"""Detects the format of a source file from its content, and whether the file is complete."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, cast

from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.mnnfile.decodable import undecodable
from pytest_mnnquant.mnnfile.model import BadModel, read_model
from pytest_mnnquant.mnnfile.structure import Difference
from pytest_mnnquant.mnnfile.wire import BYTES, VARINT, BadParams, Field, fields
from pytest_mnnquant.sources.onnx_data import external_files
from pytest_mnnquant.sources.onnx_file import require_float
from pytest_mnnquant.sources.spec import QuantizedSource, SourceError
from pytest_mnnquant.sources.tflite_file import require_float_tflite

#: The sources that MNN's wheels convert.
FRAMEWORKS: Final = ("ONNX", "MNN", "TFLITE", "TF", "CAFFE", "JSON")
_VERSION, _GRAPH = 1, 7  # Fields of ONNX's ModelProto.
_OTHER_FORMAT: Final = "this is another format"


def wrong_content(path: Path, framework: str) -> str:
    """Why the file at `path` is not a valid source of this framework; empty if it is.

    TF and CAFFE files are protobuf without a signature: they are only checked for completeness.
    """
    if not path.is_file():
        return "no such file"
    if not path.stat().st_size:
        return "the file is empty"
    broken = _CHECKS[framework](path)
    if not broken:
        return _quantized(path, framework)
    actual = other_format(path, framework)
    return f"the file is {actual}: write -f {actual}" if actual else broken


def other_format(path: Path, framework: str) -> str:
    """Which other framework's model the file is; empty if it is none that is known."""
    kinds = (kind for kind in ("MNN", "TFLITE", "ONNX", "JSON") if kind != framework)
    return next((kind for kind in kinds if not _CHECKS[kind](path)), "")


def _mnn(path: Path) -> str:
    try:
        model = read_model(path)
    except BadModel as error:
        return str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")
    if model.external_missing:
        return f"its weight file {model.external_path} is missing or too short"
    return "" if (broken := undecodable(model)) is None else undecodable_text(broken)


def undecodable_text(broken: Difference) -> str:
    """The rule and the reason for weights that can't be decoded."""
    return f"{RULES['MNQ403'].title}: the weights of {broken.operator or 'an operator'} can't be decoded: {broken.text}"


def _tflite(path: Path) -> str:
    with path.open("rb") as file:
        return "" if file.read(8)[4:] == b"TFL3" else "is not a TFLite model"


def _quantized(path: Path, framework: str) -> str:
    """That a file is quantized already, which MNN's converter does not notice; empty if it is not."""
    require = {"ONNX": require_float, "TFLITE": require_float_tflite}.get(framework)
    try:
        if require is not None:
            require(path)
    except QuantizedSource as error:
        return f"{str(error).removeprefix(f'{path.name} ')}; give the float model"
    return ""


def _json(path: Path) -> str:
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        return f"is not JSON: {error}"
    return ""


def _onnx(path: Path) -> str:
    try:
        numbers = {(field.number, field.wire_type) for field in _fields(path)}
    except ValueError as error:
        return f"is not a complete ONNX model: {error}"
    if (_VERSION, VARINT) not in numbers or (_GRAPH, BYTES) not in numbers:
        return "is not an ONNX model: it has no graph"
    try:
        external_files(path)
    except SourceError as error:  # For missing weights, MNN would use uninitialized memory.
        return str(error).removeprefix(f"{path}: ")
    return ""


def _fields(path: Path) -> Iterator[Field]:
    """The fields of a memory-mapped protobuf file: weights are skipped, not copied."""
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return fields(cast("bytes", mapped), otherwise=_OTHER_FORMAT)


def _protobuf(path: Path) -> str:
    try:
        numbers = {(field.number, field.wire_type) for field in _fields(path)}
    except BadParams as error:
        return f"is not a complete protobuf file: {error}"
    return "is an ONNX model" if (_VERSION, VARINT) in numbers else ""


_CHECKS: Final[dict[str, Callable[[Path], str]]] = {
    "MNN": _mnn,
    "TFLITE": _tflite,
    "ONNX": _onnx,
    "JSON": _json,
    "TF": _protobuf,
    "CAFFE": _protobuf,
}
