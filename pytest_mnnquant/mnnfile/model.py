"""A `.mnn` file as plain values: its operators, the tensors between them, the weights they hold.

The file is memory-mapped: inspecting a model reads its graph, not its weights.
"""

from __future__ import annotations

import dataclasses
import mmap
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import BadModel, Table
from pytest_mnnquant.mnnfile.fused import fused_members
from pytest_mnnquant.mnnfile.parameters import (
    blob_weights,
    convolution_weights,
    inner_product_weights,
    vector_weights,
)
from pytest_mnnquant.mnnfile.schema import DATA_TYPES, OP_NAMES, PARAMETER_NAMES
from pytest_mnnquant.mnnfile.storage import Affine, Floats, Storage, Weights, affine

# Parameter table -> (slots of its float vectors, slot of their position in the .mnn.weight file).
VECTORS: Final = {
    "MatMul": ((3, 4), None),
    "Scale": ((1, 2), 3),
    "LayerNorm": ((2, 3), 5),
    "GroupNorm": ((2, 3), 6),
    "PRelu": ((1,), None),
    "BatchNorm": ((1, 2, 3, 4, 5, 6), None),
    "Convolution3D": ((1,), 3),
}
# Bytes of a file that is read instead of mapped.
# `Net.usage` of a model made with --saveStaticModel.
_STATIC: Final = 2
_SMALL: Final = 1 << 22
_BLOBS: Final = {"LSTM": (3, 4, 5, 6), "RNNParam": (4, 5, 6, 7, 8, 9, 10, 11, 12, 13)}
_VECTOR_KINDS: Final = ("Scale", "LayerNorm", "GatedRMSNorm", "GroupNorm", "PReLU", "BatchNorm")
CONVOLUTIONS: Final = frozenset(
    {"Convolution", "ConvolutionDepthwise", "Deconvolution", "DeconvolutionDepthwise", "ConvInt8", "DepthwiseConvInt8"}
)


@dataclass(frozen=True, slots=True)
class TensorQuant:
    """How a tensor is quantized: real value = scale * (code - zero), codes in [low, high]."""

    scale: float
    zero: float
    low: float
    high: float
    data_type: str


@dataclass(frozen=True, slots=True)
class ModelInput:
    """An input of the model. A dimension of -1 is dynamic; `layout` is NCHW, NHWC or NC4HW4 (fed as NCHW)."""

    name: str
    shape: tuple[int, ...]
    data_type: str
    layout: str


@dataclass(frozen=True, slots=True)
class Op:
    """One operator. `subgraph` is empty for the main graph. `weights` has one entry per stored tensor.

    `shape` is (output channels, input channels, kernel height, kernel width) of a convolution, the dimensions of a
    constant, else empty.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    subgraph: str = ""
    shape: tuple[int, ...] = ()
    group: int = 1
    weights: tuple[Weights, ...] = ()
    parameter_kind: str = ""
    parameters: Table | None = field(default=None, repr=False, compare=False)

    @property
    def is_convolution(self) -> bool:
        """Whether MNN can store this operator's weights in low bits (Linear layers are 1x1 convolutions in MNN)."""
        return self.kind in CONVOLUTIONS

    @property
    def is_layer(self) -> bool:
        """Whether this operator has weights that count for quantization: filters, matrices and tables.

        Vectors (bias, normalization, PReLU slopes) have one number per channel; no tool stores them in low bits.
        """
        if not self.weights or self.kind in _VECTOR_KINDS:
            return False
        return self.kind != "Const" or sum(size > 1 for size in self.shape) >= 2

    @property
    def weight_count(self) -> int:
        """Number of weights."""
        return sum(weights.count for weights in self.weights)

    @property
    def winograd_bytes(self) -> int:
        """Bytes of a full-int8 layer's Winograd settings and scales, which mnnquant's EMA adds to 3x3 convolutions."""
        quantized = self.parameters.table(4) if self.parameters and self.parameter_kind == "Convolution2D" else None
        return 4 * quantized.span(10, 4)[1] if quantized else 0

    @property
    def weight_bytes(self) -> int:
        """Bytes that store the weights, scales included."""
        return sum(weights.size for weights in self.weights)


@dataclass(frozen=True)
class Model:
    """A parsed `.mnn` file. `size` includes the `.mnn.weight` file, if it exists; `main_size` does not."""

    path: Path
    size: int
    version: str
    uuid: str
    ops: tuple[Op, ...]
    tensor_names: tuple[str, ...]
    inputs: tuple[ModelInput, ...]
    output_names: tuple[str, ...]
    tensor_quants: dict[int, TensorQuant]
    external_path: Path | None
    external_needed: int
    main_size: int = 0
    #: Made with `--saveStaticModel`: the shapes for one input size are written into the operators.
    is_static: bool = False
    _buffer: memoryview = field(default=memoryview(b""), repr=False, compare=False)
    _external: memoryview | None = field(default=None, repr=False, compare=False)

    @property
    def layers(self) -> tuple[Op, ...]:
        """The operators whose weights can or should be quantized."""
        return tuple(op for op in self.ops if op.is_layer)

    @property
    def convolutions(self) -> tuple[Op, ...]:
        """The convolutions of the main graph, Linear layers included."""
        return tuple(op for op in self.ops if op.is_convolution and op.weights and not op.subgraph)

    @property
    def has_subgraphs(self) -> bool:
        """Whether the model has While or If bodies: such models have no op trace."""
        return any(op.subgraph for op in self.ops)

    @property
    def external_missing(self) -> int:
        """The number of missing bytes of external weights."""
        return max(0, self.external_needed - (len(self._external) if self._external is not None else 0))

    def decoded(self, op: Op) -> Floats:
        """The weights of a layer as float32. Raises `BadModel` if they are missing or inconsistent."""
        if len(op.weights) != 1:
            raise BadModel(f"{op.name} has {len(op.weights)} weight tensors, expected 1")
        return op.weights[0].decoded(self._external)

    def vectors(self) -> dict[str, Floats]:
        """Biases and the vectors of normalizations, by operator (integers in an old MNN's full-int8 files)."""
        vectors = {}
        for op in self.ops:
            if op.parameter_kind == "Convolution2D" and op.parameters is not None and op.parameters.span(2, 4)[1]:
                vectors[op.name] = op.parameters.array(2, "<f4")
            elif op.weights and not op.is_layer and op.kind != "Const" and not self.external_missing:
                vectors[op.name] = self.decoded(op)
        return vectors

    def bytes_at(self, start: int, size: int, external: bool = False) -> memoryview | None:
        """A run of bytes of the `.mnn` or the `.mnn.weight` file; None if the file is too short."""
        buffer = self._external if external else self._buffer
        return None if buffer is None or start + size > len(buffer) else buffer[start : start + size]

    def affine(self, op: Op) -> Affine:
        """The integer weights of a layer as codes, scales and offsets. Raises `BadModel` for other storage."""
        return affine(op.weights[0], self._external)

    def steps(self, op: Op) -> Floats:
        """Quantization step of each scale group of a layer, shape [channels * blocks]; empty for float storage."""
        return op.weights[0].steps(self._external)


def read_model(path: Path, external: Path | None = None) -> Model:
    """Parse the `.mnn` file at `path`. Raises `BadModel` (what is wrong) or `OSError` (no such file).

    `external` is the file of its external weights, if that is not the `.mnn.weight` file beside it.
    """
    buffer = map_bytes(path)
    if len(buffer) < 32:
        raise BadModel(f"{path}: {len(buffer)} bytes, too short for an MNN model")
    try:
        return _model(path, buffer, external or path.with_name(path.name + ".weight"))
    except BadModel as error:
        raise BadModel(f"{path} is not a complete MNN model: {error}") from None


def map_bytes(path: Path) -> memoryview:
    """The bytes of a file, mapped if it is large. Raises `OSError`, and `BadModel` for a pipe or a device."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
        raise BadModel(f"{path} is not a regular file")
    with path.open("rb") as file:
        if state.st_size <= _SMALL:  # A mapping keeps a descriptor, and a run may have hundreds of models.
            return memoryview(file.read())
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _model(path: Path, buffer: memoryview, beside: Path) -> Model:
    net = Table.root(buffer)
    names = net.strings(7)
    ops = tuple(_ops(net, names))
    if not ops or not names:
        raise BadModel("it has no operators")
    needed = max((sum(weights.external) for op in ops for weights in op.weights if weights.external), default=0)
    external = map_bytes(beside) if needed and beside.is_file() else None
    extra = net.table(2)
    return Model(
        path=path,
        size=len(buffer) + (len(external) if external is not None else 0),
        version=extra.string(2) if extra else "",
        uuid=net.string(11),
        ops=ops,
        tensor_names=names,
        inputs=tuple(_input(op) for op in ops if op.kind == "Input" and not op.subgraph),
        output_names=net.strings(4),
        tensor_quants=dict(_tensor_quants(net, 1)),
        external_path=beside if needed else None,
        external_needed=needed,
        main_size=len(buffer),
        is_static=int(net.scalar(9, "i8")) == _STATIC,
        _buffer=buffer,
        _external=external,
    )


def _tensor_quants(holder: Table, slot: int) -> Iterator[tuple[int, TensorQuant]]:
    for described in holder.tables(slot):
        info = described.table(4)
        if info is not None:
            yield (
                int(described.scalar(1, "i32")),
                TensorQuant(
                    scale=float(info.scalar(0, "f32")),
                    zero=float(info.scalar(1, "f32")),
                    low=float(info.scalar(2, "f32", -128.0)),
                    high=float(info.scalar(3, "f32", 127.0)),
                    data_type=DATA_TYPES.get(int(info.scalar(4, "i32")), "?"),
                ),
            )


def _ops(net: Table, names: tuple[str, ...]) -> Iterator[Op]:
    for table in net.tables(3):
        yield from _with_members(_op(table, names, ""))
    for subgraph in net.tables(10):
        inner, title = subgraph.strings(3), subgraph.string(0)
        for table in subgraph.tables(4):
            yield from _with_members(_op(table, inner, title))


def _with_members(op: Op) -> Iterator[Op]:
    """An operator, and the layers that are fused into it as operators of their own."""
    yield op
    if op.parameters is None:
        return
    for member in fused_members(op.parameter_kind, op.name, op.output_names, op.parameters):
        shape, group = _shape(member.parameter_kind, member.parameters)
        yield dataclasses.replace(
            op,
            name=member.name,
            kind=member.kind,
            shape=shape,
            group=group,
            weights=tuple(_weights(member.parameter_kind, member.parameters)),
            parameter_kind=member.parameter_kind,
            parameters=member.parameters,
        )


def _op(table: Table, names: tuple[str, ...], subgraph: str) -> Op:
    number, union = int(table.scalar(5, "i32")), int(table.scalar(1, "u8"))
    parameters = table.table(2) if union else None
    parameter_kind = PARAMETER_NAMES.get(union, f"#{union}")
    inputs, outputs = table.ints(0), table.ints(4)
    shape, group = _shape(parameter_kind, parameters)
    return Op(
        name=table.string(3),
        kind=OP_NAMES.get(number, f"#{number}"),
        inputs=inputs,
        outputs=outputs,
        input_names=tuple(_name(names, index) for index in inputs),
        output_names=tuple(_name(names, index) for index in outputs),
        subgraph=subgraph,
        shape=shape,
        group=group,
        weights=tuple(_weights(parameter_kind, parameters)) if parameters else (),
        parameter_kind=parameter_kind,
        parameters=parameters,
    )


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if 0 <= index < len(names) else f"#{index}"


def _weights(kind: str, table: Table) -> Iterator[Weights]:
    stored: list[Weights | None] = []
    if kind == "Convolution2D":
        stored = [convolution_weights(table)]
    elif kind == "InnerProduct":
        stored = [inner_product_weights(table)]
    elif kind == "Blob":
        stored = [blob_weights(table)]
    elif kind in VECTORS:
        stored = [vector_weights(table, *VECTORS[kind])]
    elif kind in _BLOBS:
        stored = [blob_weights(blob) for slot in _BLOBS[kind] if (blob := table.table(slot)) is not None]
    yield from (weights for weights in stored if weights is not None)


def _shape(kind: str, table: Table | None) -> tuple[tuple[int, ...], int]:
    if table is None:
        return (), 1
    if kind == "Blob":
        return table.ints(0), 1
    common = table.table(0) if kind == "Convolution2D" else None
    if common is None:
        return (), 1
    channels, group = int(common.scalar(10, "i32")), max(1, int(common.scalar(9, "i32", 1)))
    height, width = int(common.scalar(3, "i32", 1)), int(common.scalar(2, "i32", 1))
    return (channels, int(common.scalar(11, "i32")), height, width), group


def input_name(op: Op) -> str:
    """The name of an Input operator when a model is run: the name of its tensor."""
    return op.output_names[0] if op.output_names else op.name


def _input(op: Op) -> ModelInput:
    table, name = op.parameters, input_name(op)
    if table is None:
        return ModelInput(name, (), "float", "NCHW")
    layout = {0: "NCHW", 1: "NHWC", 2: "NC4HW4"}.get(int(table.scalar(2, "i8", 2)), "?")
    return ModelInput(name, table.ints(0), DATA_TYPES.get(int(table.scalar(1, "i32", 1)), "?"), layout)


__all__ = [
    "BadModel",
    "Floats",
    "Model",
    "ModelInput",
    "Op",
    "Storage",
    "TensorQuant",
    "Weights",
    "input_name",
    "read_model",
]
