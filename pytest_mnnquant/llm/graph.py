"""The matrices, vectors and tables of one graph of an export: `llm.mnn`, or a part such as `visual.mnn`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from pytest_mnnquant.llm.extents import NOWHERE, Extent
from pytest_mnnquant.llm.matrix import Form, StoredMatrix
from pytest_mnnquant.llm.rotary import is_rotary_table
from pytest_mnnquant.mnnfile.codes import bits_of, integer_header
from pytest_mnnquant.mnnfile.constants import operand_constants
from pytest_mnnquant.mnnfile.ledger import SCALES, VECTOR, Part, account
from pytest_mnnquant.mnnfile.model import BadModel, Floats, Model, Op, read_model
from pytest_mnnquant.mnnfile.storage import Kind, Storage, Weights

_FORMS: Final = {Storage.FLOAT32: Form.FLOAT32, Storage.FLOAT16: Form.FLOAT16, Storage.INTEGER: Form.INTEGER}
_LAYER_NUMBER: Final = re.compile(r"/(?:layers|blocks)\.(\d+)/")


@dataclass(frozen=True)
class StoredVector:
    """A float vector (the weight of a norm, a constant) of a graph. `values` are read when the folder is read.

    `shift` is the bias of a norm; empty if it has none, or for a constant.
    """

    name: str
    kind: str
    values: Floats = field(repr=False, compare=False)
    epsilon: float = 0.0
    extents: tuple[Extent, ...] = ()
    shift: Floats = field(default_factory=lambda: np.empty(0, np.float32), repr=False, compare=False)


@dataclass(frozen=True)
class Graph:
    """One `.mnn` file of an export. `weight_file` is the name of the file of its external weights, empty if none.

    `version` is the MNN that made it. `tables` are float constants of two or more dimensions that hold the rotations of
    positions; they are not layers. `external` are the runs of bytes that its operators need of the weight file.
    """

    file: str
    weight_file: str
    version: str
    size: int
    matrices: tuple[StoredMatrix, ...]
    vectors: tuple[StoredVector, ...]
    tables: tuple[StoredVector, ...]
    constants: tuple[StoredVector, ...]
    external: tuple[Extent, ...]
    classes: Mapping[str, int]
    attention_layers: int

    @property
    def external_needed(self) -> int:
        """Bytes that the weight file must have."""
        return max((run.end for run in self.external), default=0)

    @property
    def layer_count(self) -> int:
        """Number of transformer layers, by the names of its matrices."""
        numbers = {int(match[1]) for matrix in self.matrices if (match := _LAYER_NUMBER.match(matrix.name))}
        return len(numbers)

    def matrix(self, name: str) -> StoredMatrix | None:
        """The matrix of a name."""
        return next((matrix for matrix in self.matrices if matrix.name == name), None)

    @property
    def head(self) -> StoredMatrix | None:
        """The matrix that makes logits."""
        return next((matrix for matrix in self.matrices if "lm_head" in matrix.name), None)


def read_graph(path: Path, weights: Path) -> Graph:
    """Read a graph whose external weights are in `weights`. Raises `BadModel`, `OSError`."""
    model = read_model(path, weights)
    ledger = account(model)
    parts: dict[str, list[Part]] = defaultdict(list)
    for part in ledger.parts:
        parts[part.op].append(part)
    matrices, vectors, tables, constants = [], [], [], []
    operands = operand_constants(model)
    for op in model.ops:
        if not op.weights:
            continue
        if op.kind != "Const" and op.is_layer:
            matrices.append(_matrix(model, op, parts[op.name], path.name, weights.name))
            continue
        vector = _vector(model, op, parts[op.name])
        if op.kind != "Const":
            vectors.append(vector)
        elif not op.is_layer:
            constants.append(vector)
        elif is_rotary_table(vector.values):
            tables.append(vector)
        elif (op.subgraph, op.name) in operands:
            constants.append(vector)  # Such as the filters of a linear attention.
        else:
            matrices.append(_constant_matrix(op, parts[op.name], path.name, weights.name))
    return Graph(
        file=path.name,
        weight_file=weights.name if model.external_path is not None else "",
        version=model.version,
        size=model.main_size,
        matrices=tuple(matrices),
        vectors=tuple(vectors),
        tables=tuple(tables),
        constants=tuple(constants),
        external=tuple(_extent(part) for part in ledger.parts if part.external),
        classes=ledger.classes,
        attention_layers=sum(op.kind in ("Attention", "LinearAttention") for op in model.ops),
    )


def _extent(part: Part) -> Extent:
    return Extent(part.start, part.size, part.op, part.kind)


def _vector(model: Model, op: Op, parts: list[Part]) -> StoredVector:
    try:
        values = model.decoded(op)
    except BadModel:  # Its bytes are missing, which the map of the file reports.
        values = np.empty(0, np.float32)
    shift = values[:0]
    if op.parameter_kind == "LayerNorm" and op.parameters is not None:
        place = op.weights[0].external
        count = place[1] // 4 if len(place) > 1 else op.parameters.span(2, 4)[1]
        values, shift = values[:count], values[count:]
    values = values.reshape(op.shape) if len(op.shape) > 1 and values.size == np.prod(op.shape) else values
    is_norm = op.parameter_kind == "LayerNorm" and op.parameters is not None
    epsilon = float(op.parameters.scalar(1, "f32")) if is_norm and op.parameters is not None else 0.0
    extents = tuple(_extent(part) for part in parts if part.size)
    return StoredVector(op.name, op.kind, values, epsilon, extents, shift)


def _runs(parts: list[Part], graph: str, weights: str) -> tuple[str, Extent, Extent, Extent]:
    """The file of a layer's weights, and its codes, scales and bias in it."""
    used = [part for part in parts if part.size > 0]
    external = any(part.external for part in used)
    codes = scales = bias = NOWHERE
    for part in used:
        if part.external != external:
            continue
        if part.kind == VECTOR:
            bias = _extent(part)
        elif part.kind == SCALES:
            scales = scales if scales.length else _extent(part)
        else:
            codes = codes if codes.length else _extent(part)
    return weights if external else graph, codes, scales, bias


def _constant_matrix(op: Op, parts: list[Part], graph: str, weights: str) -> StoredMatrix:
    file, codes, _, _ = _runs(parts, graph, weights)
    stored, rows = op.weights[0], op.shape[0] or 1
    form = _FORMS.get(stored.storage, Form.OTHER)
    return StoredMatrix(op.name, file, form, rows, stored.count // rows, stored.bits, codes)


def _matrix(model: Model, op: Op, parts: list[Part], graph: str, weights: str) -> StoredMatrix:
    file, codes, scales, bias = _runs(parts, graph, weights)
    stored = op.weights[0]
    rows = stored.channels or (op.shape[0] if op.shape else 1) or 1
    columns = stored.count // rows if stored.count % rows == 0 else 0
    form = _FORMS.get(stored.storage, Form.OTHER)
    plain = StoredMatrix(op.name, file, form, rows, columns, stored.bits, codes, scales, bias)
    if form is not Form.INTEGER:
        return plain
    return _quantized(model, op, plain)


def _quantized(model: Model, op: Op, plain: StoredMatrix) -> StoredMatrix:
    stored = op.weights[0]
    table = op.parameters.table(3) if op.parameters else None
    claimed = int(table.scalar(9, "i32")) if table else 0
    lowest = min(int(table.scalar(8, "i32")) or -128, 0) if table else 0
    scale_bits = 16 if stored.half_scales else 32
    values = plain.scales.length // (scale_bits // 8)
    symmetric = not stored.asymmetric
    groups = values if symmetric else values // 2
    per_row = groups // plain.rows
    fault = _scale_fault(plain, groups, values, symmetric)
    is_wide = bool(table and table.scalar(11, "u8"))
    header, problem = (0, "") if fault else _header(model, stored, plain, groups, wide=is_wide)
    return StoredMatrix(
        plain.name,
        plain.file,
        plain.form,
        plain.rows,
        plain.columns,
        stored.bits,
        plain.codes,
        plain.scales,
        plain.bias,
        block=plain.columns // per_row if per_row else 0,
        symmetric=symmetric,
        scale_bits=scale_bits,
        header=header,
        lowest=0 if symmetric else lowest,
        claimed_groups=claimed,
        fault=fault or problem,
    )


def _scale_fault(plain: StoredMatrix, groups: int, values: int, symmetric: bool) -> str:
    """Why the scales of a layer can't be its scales; empty if they can."""
    per_row = groups // plain.rows
    if not per_row or groups % plain.rows or plain.columns % max(1, per_row) or (not symmetric and values % 2):
        form = "symmetric" if symmetric else "asymmetric"
        return f"{values:,} {form} scale values do not divide {plain.rows:,} rows of {plain.columns:,} weights"
    return ""


def _header(model: Model, stored: Weights, plain: StoredMatrix, groups: int, *, wide: bool) -> tuple[int, str]:
    """Length of the header before the codes, and how it contradicts the graph, whose scales are for these groups."""
    if stored._source is not None and int(stored._source.scalar(2, "i32")) == Kind.PLAIN:
        return 0, ""
    external = plain.file != model.path.name
    data = model.bytes_at(plain.codes.offset, min(plain.codes.length, 300), external)
    if data is None or plain.codes.offset < 0:
        return 0, "its bytes are missing"
    try:
        shape, book, header = integer_header(np.frombuffer(data, np.uint8), wide)
    except BadModel as error:
        return 0, f"no header of codes is where the graph points ({error})"
    expected = tuple(range(-(1 << stored.bits - 1), 1 << stored.bits - 1))
    # The converter writes the shape of its blocks, one per row: (rows * blocks, columns / blocks).
    if shape not in ((plain.rows, plain.columns), (groups, plain.count // max(1, groups))):
        return header, f"the header of its codes has the shape {shape}, the graph {(plain.rows, plain.columns)}"
    if bits_of(book) != stored.bits or tuple(sorted(book.tolist())) != expected:
        return header, f"the header of its codes lists {book.size} values, {stored.bits} bits have {len(expected)}"
    if header + (plain.count * stored.bits + 7) // 8 != plain.codes.length:
        return header, f"{plain.codes.length:,} bytes are not those of {plain.count:,} codes of {stored.bits} bits"
    return header, ""
