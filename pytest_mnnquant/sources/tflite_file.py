"""Checks of a `.tflite` file that MNN's converter omits: that it is not quantized, and what its custom operators are.

Slots of tables, of TensorFlow Lite's schema.fbs (version 3): Model.operator_codes 1, subgraphs 2, buffers 4,
signature_defs 7; SignatureDef.signature_key 2, subgraph_index 4;
OperatorCode.deprecated_builtin_code 0, custom_code 1, builtin_code 3; SubGraph.tensors 0, inputs 1, operators 3;
Tensor.shape 0, type 1, buffer 2, name 3, quantization 4, shape_signature 7; QuantizationParameters.scale 2;
Operator.opcode_index 0, inputs 1, outputs 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import BadModel, Table
from pytest_mnnquant.mnnfile.model import map_bytes
from pytest_mnnquant.sources.spec import QuantizedSource

_SIGNATURE: Final = b"TFL3"
_CUSTOM: Final = 32
#: Types of tensors that hold codes if they have a scale.
_INTEGERS: Final = {3: "uint8", 7: "int16", 9: "int8", 16: "uint16", 17: "int4", 19: "int2", 20: "uint4"}
#: Operators that read numbers of 8 bits which are not codes: pixels.
_OF_PIXELS: Final = frozenset({53})  # CAST
#: Names of the operators that read quantized weights, by their numbers.
_OPERATORS: Final = {
    3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 7: "EMBEDDING_LOOKUP", 9: "FULLY_CONNECTED", 16: "LSTM",
    36: "GATHER", 44: "UNIDIRECTIONAL_SEQUENCE_LSTM", 67: "TRANSPOSE_CONV", 114: "QUANTIZE", 126: "BATCH_MATMUL",
    132: "CONV_3D",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TfliteOperator:
    """An operator: its kind, the name of its first output, and the integer types of its quantized inputs."""

    kind: str
    name: str
    quantized: tuple[str, ...] = ()


def require_float_tflite(path: Path) -> None:
    """Raise `QuantizedSource` if operators of a `.tflite` file read quantized tensors.

    Measured with MNN 3.6.1: the converter crashes on quantized convolutions, refuses 4 bits, and drops the scales of
    fully connected layers, whose results are then wrong.
    """
    quantized = [operator for operator in _operators(path) if operator.quantized]
    if not quantized:
        return
    known = [operator for operator in quantized if operator.kind in _OPERATORS.values()]
    counts = Counter((kind, operator.kind) for operator in known or quantized for kind in operator.quantized[-1:])
    kinds = ", ".join(f"{count} {operator} of {kind}" for (kind, operator), count in counts.most_common(3))
    raise QuantizedSource(
        f"{path.name} is quantized already ({kinds}), by TensorFlow's tools; MNN's converter loses their scales"
    )


def custom_operators(path: Path) -> tuple[TfliteOperator, ...]:
    """The operators of a `.tflite` file that are not TensorFlow Lite's own."""
    return tuple(operator for operator in _operators(path) if operator.kind.startswith("custom operator "))


def lost_signatures(path: Path) -> tuple[str, ...]:
    """The signatures of a `.tflite` file that MNN does not convert: it takes the first subgraph (MNN 3.6.1)."""
    try:
        signatures = [(item.scalar(4, "u32"), item.string(2)) for item in _root(path).tables(7)]
    except (BadModel, IndexError):
        return ()
    return tuple(name or f"subgraph {number}" for number, name in signatures if number)


def takes_any_tflite_batch(path: Path) -> bool:
    """Whether a `.tflite` file declares inputs with a first axis of any size."""
    try:
        graph = next(_root(path).tables(2))
        tensors = list(graph.tables(0))
        signatures = [tensors[number].ints(7) for number in graph.ints(1)]
    except (BadModel, StopIteration, IndexError):
        return False
    return bool(signatures) and all(signature[:1] == (-1,) for signature in signatures)


def _operators(path: Path) -> Iterator[TfliteOperator]:
    """The operators of all subgraphs; none of a file that is not TFLite: the conversion reports it."""
    try:
        root = _root(path)
        kinds = [_kind(code) for code in root.tables(1)]
        for graph in root.tables(2):
            tensors = list(graph.tables(0))
            for operator in graph.tables(3):
                yield _operator(operator, kinds[operator.scalar(0, "u32")], tensors)
    except (BadModel, IndexError):
        return


def _root(path: Path) -> Table:
    content = map_bytes(path)
    if bytes(content[4:8]) != _SIGNATURE:
        raise BadModel(f"{path} is not a TFLite model")
    return Table.root(content)


def _kind(code: Table) -> tuple[int, str]:
    number = max(code.scalar(3, "i32"), code.scalar(0, "i8"))
    return number, f"custom operator {code.string(1)}" if number == _CUSTOM else _OPERATORS.get(
        number, f"operator {number}"
    )


def _operator(operator: Table, kind: tuple[int, str], tensors: list[Table]) -> TfliteOperator:
    number, name = kind
    read = [tensors[index] for index in operator.ints(1) if index >= 0]
    quantized = () if number in _OF_PIXELS else tuple(_INTEGERS[t.scalar(1, "i8")] for t in read if _is_quantized(t))
    outputs = operator.ints(2)
    return TfliteOperator(name, tensors[outputs[0]].string(3) if outputs else "", quantized)


def _is_quantized(tensor: Table) -> bool:
    parameters = tensor.table(4)
    return tensor.scalar(1, "i8") in _INTEGERS and parameters is not None and len(parameters.array(2, "<f4")) > 0
