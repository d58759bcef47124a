"""Binds by content what exporters renamed: the tensor of the same layer and shape whose values are nearest.

Exporters map the names of many architectures to those of Llama (`dense` becomes `o_proj`), and put the gate and the up
projection of an expert into one matrix.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from pytest_mnnquant.llm.bound import BoundMatrix, BoundVector, SourceRows
from pytest_mnnquant.llm.checkpoint import Checkpoint
from pytest_mnnquant.llm.extents import Extent
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.graph import StoredVector
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import StoredMatrix, decode_rows
from pytest_mnnquant.mnnfile.storage import Floats

_NUMBER: Final = re.compile(r"(?:layers|blocks|h)[/.](\d+)[/.]")
_EXPERT: Final = re.compile(r"/expert/(\d+)_(\d+)/(\w+)_linear$")
_ROWS: Final = 8
#: Correlation of the first rows with those of the tensor, and relative error of a norm.
_ALIKE: Final = 0.5
_EQUAL: Final = 1e-2


@dataclass(frozen=True)
class ContentBinding:
    """What was bound by content, and the matrices that were not."""

    matrices: tuple[BoundMatrix, ...]
    vectors: tuple[BoundVector, ...]
    unbound: tuple[StoredMatrix, ...]


def bind_by_content(
    folder: ExportFolder,
    source: Checkpoint,
    matrices: Iterable[StoredMatrix],
    vectors: Iterable[StoredVector],
    free: Mapping[str, str],
) -> ContentBinding:
    """Bind what names did not. `free` are the tensors of the source that nothing is bound to, by short name."""
    left = dict(free)
    bound: list[BoundMatrix] = []
    unbound = []
    for stored in matrices:
        parts = _expert_parts(stored, left, source) or _nearest_matrix(folder, source, stored, left)
        bound += parts
        if not parts:
            unbound.append(stored)
        used = {part.source.stem for part in parts}
        left = {short: stem for short, stem in left.items() if stem not in used}
    norms = []
    for vector in vectors:
        stem = _nearest_vector(source, vector, left)
        if stem:
            norms.append(BoundVector(vector, f"{stem}.weight"))
            left = {short: other for short, other in left.items() if other != stem}
    return ContentBinding(tuple(bound), tuple(norms), tuple(unbound))


def _expert_parts(stored: StoredMatrix, free: Mapping[str, str], source: Checkpoint) -> list[BoundMatrix]:
    """An expert's matrix, whose rows are those of `gate_proj` and `up_proj`, or of `down_proj`."""
    match = _EXPERT.search(stored.name)
    names = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}.get(match[3] if match else "", ())
    stems = [free.get(f"{match[1]}.mlp.experts.{match[2]}.{name}", "") for name in names] if match else []
    if not stems or not all(stems):
        return []
    parts, start = [], 0
    for stem in stems:
        height = source.tensors[f"{stem}.weight"].shape[0]
        part = stored if stored.fault or len(stems) == 1 else part_of(stored, start, start + height)
        parts.append(BoundMatrix(part, SourceRows(stem, 0, height)))
        start += height
        if stored.fault:
            break
    return parts


def part_of(stored: StoredMatrix, start: int, stop: int) -> StoredMatrix:
    """Some rows of a matrix as one, without its bias. `start` times the columns is a multiple of 8."""
    size = stored.scale_bits // 8
    row = stored.blocks * (1 if stored.symmetric else 2) * size
    scales = stored.scales
    if scales.length:
        scales = Extent(scales.offset + start * row, (stop - start) * row, scales.owner, scales.kind)
    header = stored.header + start * stored.columns * stored.bits // 8
    return dataclasses.replace(stored, rows=stop - start, header=header, scales=scales, bias=Extent(0, 0))


def _nearest_matrix(
    folder: ExportFolder, source: Checkpoint, stored: StoredMatrix, free: Mapping[str, str]
) -> list[BoundMatrix]:
    """The tensor of the same layer and shape: the only one, or the one whose first rows are alike."""
    stems = []
    for stem in _of_layer(stored.name, free):
        entry = source.tensors.get(f"{stem}.weight")
        if entry is not None and entry.is_float and len(entry.shape) > 1:
            shape = (entry.shape[0], math.prod(entry.shape[1:]))
            stems += [stem] if shape == (stored.rows, stored.columns) else []
    try:
        values = decode_rows(stored, folder.data(stored.file), 0, min(_ROWS, stored.rows)) if len(stems) > 1 else None
    except BadExport:
        return []
    if values is not None:
        likeness = {stem: _correlation(values, source.rows(f"{stem}.weight", 0, len(values))) for stem in stems}
        stems = [stem for stem in stems if likeness[stem] == max(likeness.values()) > _ALIKE]
    return [BoundMatrix(stored, SourceRows(stem, 0, stored.rows)) for stem in stems[:1]]


def _of_layer(name: str, free: Mapping[str, str]) -> Iterator[str]:
    match = _NUMBER.search(name)
    for short, stem in free.items():
        if match is None or short.partition(".")[0] == match[1]:
            yield stem


def _nearest_vector(source: Checkpoint, vector: StoredVector, free: Mapping[str, str]) -> str:
    values = vector.values.ravel()
    for stem in _of_layer(vector.name, free):
        entry = source.tensors.get(f"{stem}.weight")
        if entry is None or not entry.is_float or math.prod(entry.shape) != values.size or not values.size:
            continue
        expected = source.rows(f"{stem}.weight").ravel()
        size = float(np.abs(expected).max()) or 1.0
        if min(float(np.abs(values - expected - shift).max()) for shift in (0, 1)) <= _EQUAL * size:
            return stem
    return ""


def _correlation(first: Floats, second: Floats) -> float:
    other = second.reshape(first.shape).astype(np.float64)
    with np.errstate(all="ignore"):
        norm = float(np.linalg.norm(first)) * float(np.linalg.norm(other))
        return float((first * other).sum()) / norm if norm > 0 and math.isfinite(norm) else 0.0
