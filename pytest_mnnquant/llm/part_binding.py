"""Binds the matrices of a part (vision, audio) to the tensors of the source, by content: converters rename them.

A stored matrix may be some rows of a tensor: exporters split `qkv` into three. What a converter computes from several
tensors (such as an image patch of two frames) has the shape of none, and is not bound.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pytest_mnnquant.llm.bound import BoundMatrix, SourceRows
from pytest_mnnquant.llm.checkpoint import Checkpoint
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.graph import Graph, StoredVector
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import StoredMatrix, decode_rows
from pytest_mnnquant.mnnfile.storage import Floats

_ROWS: Final = 8
#: Correlation of first rows. Two tensors of random weights have less than 0.2, stored weights of 2 bits more than 0.8.
_ALIKE: Final = 0.5
_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class PartBinding:
    """What of a part belongs to what of the source.

    `strange` are matrices that no tensor is like, although one of their shape is left; `misplaced` hold the weights of
    a layer whose place in the network is another. `are_readable`: no matrix is cut or malformed.
    """

    matrices: tuple[BoundMatrix, ...]
    strange: tuple[StoredMatrix, ...]
    misplaced: tuple[BoundMatrix, ...]
    are_readable: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether nothing of a part that can be read is bound."""
        return self.are_readable and not self.matrices


def bind_part(folder: ExportFolder, part: Graph, source: Checkpoint, free: Iterable[str]) -> PartBinding:
    """Bind a part to `free`, the tensors of the source that the language model does not use."""
    readable = [matrix for matrix in part.matrices if _is_whole(folder, matrix)]
    by_shape: dict[tuple[int, int], list[StoredMatrix]] = defaultdict(list)
    for matrix in readable:
        by_shape[matrix.rows, matrix.columns].append(matrix)
    names, bound, strange = tuple(free), [], []
    for (rows, columns), matrices in by_shape.items():
        candidates = [*_candidates(source, names, rows, columns)]
        pairs = _pairs(folder, source, matrices, candidates)
        bound += [BoundMatrix(matrix, place) for matrix, place in pairs]
        if len(pairs) < len(candidates):
            taken = {id(matrix) for matrix, _ in pairs}
            strange += [matrix for matrix in matrices if id(matrix) not in taken]
    places = {id(matrix): number for number, matrix in enumerate(part.matrices)}
    bound.sort(key=lambda item: places[id(item.stored)])
    are_readable = len(readable) == len(part.matrices)
    return PartBinding(tuple(bound), tuple(strange), tuple(_misplaced(bound)), are_readable)


def find_norm(vector: StoredVector, source: Checkpoint, names: Iterable[str]) -> str:
    """The tensor without `.weight` that a norm holds, whole; empty if there is none."""
    for name in names:
        entry = source.tensors[name]
        if name.endswith(".weight") and entry.is_float and math.prod(entry.shape) == vector.values.size:
            expected = source.rows(name).ravel()
            size = float(np.abs(expected).max(initial=0.0)) or 1.0
            if min(float(np.abs(vector.values.ravel() - expected - more).max()) for more in (0, 1)) <= 1e-3 * size:
                return name.removesuffix(".weight")
    return ""


def _is_whole(folder: ExportFolder, matrix: StoredMatrix) -> bool:
    """Whether its bytes are there; `bundle` reports others."""
    size = folder.sizes.get(matrix.file, 0)
    return not matrix.fault and max(matrix.codes.end, matrix.scales.end, matrix.bias.end) <= size


def _candidates(source: Checkpoint, names: Iterable[str], rows: int, columns: int) -> Iterator[SourceRows]:
    """The runs of rows of this shape."""
    for name in names:
        entry = source.tensors[name]
        if not (name.endswith(".weight") and entry.is_float and len(entry.shape) > 1):
            continue
        if math.prod(entry.shape[1:]) == columns and entry.shape[0] % rows == 0:
            stem = name.removesuffix(".weight")
            yield from (SourceRows(stem, start, start + rows) for start in range(0, entry.shape[0], rows))


def _pairs(
    folder: ExportFolder, source: Checkpoint, matrices: list[StoredMatrix], candidates: list[SourceRows]
) -> list[tuple[StoredMatrix, SourceRows]]:
    """Matrices and the runs that they are like, the most similar ones first; each run is used once."""
    if not candidates:
        return []
    count = min(_ROWS, matrices[0].rows)
    first = _units([_first_rows(folder, matrix, count) for matrix in matrices])
    second = _units([source.rows(place.weight, place.start, place.start + count) for place in candidates])
    likeness = first @ second.T
    pairs = []
    for flat in np.argsort(-likeness, axis=None):
        row, column = divmod(int(flat), len(candidates))
        if likeness[row, column] <= _ALIKE:
            break
        pairs.append((matrices[row], candidates[column]))
        likeness[row], likeness[:, column] = -1.0, -1.0
        if len(pairs) == min(likeness.shape):
            break
    return pairs


def _first_rows(folder: ExportFolder, matrix: StoredMatrix, count: int) -> Floats:
    try:
        return decode_rows(matrix, folder.data(matrix.file), 0, count)
    except BadExport:
        return np.zeros((count, matrix.columns), np.float32)


def _units(blocks: list[Floats]) -> Floats:
    """Blocks as rows of length 1, shape [blocks, values]; all zeros if a block is not finite."""
    rows = np.nan_to_num(np.stack([block.ravel() for block in blocks]), nan=0.0, posinf=0.0, neginf=0.0)
    units: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-20)
    return units


def _misplaced(bound: list[BoundMatrix]) -> Iterator[BoundMatrix]:
    """Those whose layer is before one that ran earlier, among tensors whose names differ in the number of the layer."""
    last: dict[tuple[str, int], list[int]] = {}
    for item in bound:
        numbers = [int(number) for number in _NUMBER.findall(item.source.weight)]
        kind = (_NUMBER.sub("*", item.source.weight), item.source.start)
        if numbers and numbers < last.get(kind, numbers):
            yield item
        last[kind] = max(numbers, last.get(kind, numbers))
