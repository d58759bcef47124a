"""`inspect` and `diff` of the folder of a language model's export, as JSON and as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pytest_mnnquant.llm.extents import FileMap
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.matrix import Form, StoredMatrix
from pytest_mnnquant.llm.requests import stored_block
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.recipe import Recipe
from pytest_mnnquant.report.width import shown

_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=/)|^\d+")


def export_content(folder: ExportFolder) -> dict[str, Any]:
    """What the folder holds: files, matrices, embedding, bytes that nothing points at, and what can't be used."""
    embedding, tokenizer = folder.embedding, folder.tokenizer
    matrices = [*folder.graph.matrices, *_matrices_of_parts(folder)]
    weights = sum(matrix.count for matrix in matrices)
    low = sum(matrix.count for matrix in matrices if matrix.is_quantized)
    return {
        "path": str(folder.path),
        "kind": "language model export",
        "bytes": folder.size,
        "shipped_bytes": folder.shipped_size,
        "made_by": folder.graph.version,
        "model_type": folder.config.model_type,
        "hidden_size": folder.config.hidden_size,
        "transformer_layers": folder.graph.layer_count,
        "files": [{"name": file.name, "purpose": file.purpose.value, "bytes": file.size} for file in folder.files],
        "layers": [_matrix_content(matrix) for matrix in matrices],
        "embedding": None if embedding is None else {**_matrix_content(embedding), "tied": folder.is_tied},
        "tokenizer": None
        if tokenizer is None
        else {"kind": tokenizer.kind, "tokens": tokenizer.size, "stop": list(tokenizer.stop_ids)},
        "classes": {graph.file: dict(graph.classes) for graph in (folder.graph, *folder.parts)},
        "weight_files": [_map_content(item) for item in folder.maps],
        "missing_files": missing_files(folder),
        "faults": [str(fault) for fault in folder.faults],
        "quantized_share": low / weights if weights else 0.0,
    }


def _matrix_content(matrix: StoredMatrix) -> dict[str, Any]:
    return {
        "name": matrix.name,
        "file": matrix.file,
        "shape": [matrix.rows, matrix.columns],
        "stored": matrix.label,
        "bits": matrix.bits,
        "block": matrix.block,
        "symmetric": matrix.symmetric,
        "scale_bits": matrix.scale_bits,
        "offset": matrix.codes.offset,
        "bytes": matrix.bytes,
        "fault": matrix.fault,
    }


def _map_content(item: FileMap) -> dict[str, Any]:
    return {
        "file": item.file,
        "bytes": item.size,
        "missing": item.missing,
        "unused": item.unused,
        "overlaps": [[overlap.first.owner, overlap.second.owner] for overlap in item.overlaps],
    }


def missing_files(folder: ExportFolder) -> list[str]:
    """Files that the runtime opens and the folder does not have."""
    return [named.file for named in folder.config.files if named.file not in folder.sizes]


def is_broken(folder: ExportFolder) -> bool:
    """Whether the runtime can't load a part of the export, or reads the wrong bytes for it."""
    matrices = [*folder.graph.matrices, *([folder.embedding] if folder.embedding else [])]
    return bool(
        folder.faults
        or missing_files(folder)
        or any(item.missing or item.overlaps for item in folder.maps)
        or any(matrix.fault for matrix in matrices)
    )


@dataclass(frozen=True)
class _Row:
    """Matrices of one form in several transformer layers."""

    name: str
    first: StoredMatrix
    number: int
    bytes: int


def _matrices_of_parts(folder: ExportFolder) -> list[StoredMatrix]:
    """The matrices of the other graphs, without those that they share with the language model."""
    shared = {(matrix.name, matrix.file) for matrix in folder.graph.matrices}
    parts = [matrix for part in folder.parts for matrix in part.matrices]
    return [matrix for matrix in parts if (matrix.name, matrix.file) not in shared]


def _rows(matrices: Iterable[StoredMatrix]) -> Iterator[_Row]:
    groups: dict[tuple[object, ...], list[StoredMatrix]] = {}
    for matrix in matrices:
        name = _NUMBER.sub("*", matrix.name)
        form = (matrix.label, matrix.symmetric, matrix.scale_bits, matrix.rows, matrix.columns, matrix.fault)
        groups.setdefault((name, *form), []).append(matrix)
    for members in groups.values():
        name = members[0].name if len(members) == 1 else _NUMBER.sub("*", members[0].name)
        yield _Row(name, members[0], len(members), sum(matrix.bytes for matrix in members))


def export_text(folder: ExportFolder) -> str:
    """An export as a table: files, then matrices of one form together, then what is wrong."""
    config = folder.config
    made_by = f", made by MNN {folder.graph.version}" if folder.graph.version else ""
    lines = [f"{folder.path}: {config.model_type or 'language model'}, {folder.size:,} bytes{made_by}"]
    lines += [f"{'file':<28}{'bytes':>14}  purpose"]
    lines += [f"{file.name:<28}{file.size:>14,}  {file.purpose.value}" for file in folder.files]
    lines.append(f"{'stored':<20}{'scales':<12}{'shape':<14}{'number':>6}{'bytes':>14}  layer")
    if folder.embedding is not None:
        tied = "embedding (tied)" if folder.is_tied else "embedding"
        lines.append(_line(_Row(tied, folder.embedding, 1, folder.embedding.bytes)))
    lines += [_line(row) for row in _rows([*folder.graph.matrices, *_matrices_of_parts(folder)])]
    lines += [f"not used: {item.file}, {item.unused:,} bytes" for item in folder.maps if item.unused]
    lines += [f"cut: {item.file}, {item.missing:,} bytes are missing" for item in folder.maps if item.missing]
    lines += [
        f"shared bytes: {item.file}, {overlap.first.owner} and {overlap.second.owner}"
        for item in folder.maps
        for overlap in item.overlaps
    ]
    lines += [f"missing: {file}" for file in missing_files(folder)]
    lines += [f"fault: {fault}" for fault in folder.faults]
    return "\n".join(map(shown, [*lines, _verdict(folder)]))


def _line(row: _Row) -> str:
    matrix = row.first
    scales = f"{'sym' if matrix.symmetric else 'asym'} fp{matrix.scale_bits}" if matrix.is_quantized else ""
    shape = f"{matrix.rows}x{matrix.columns}"
    fault = f"  BROKEN: {matrix.fault}" if matrix.fault else ""
    return f"{matrix.label:<20}{scales:<12}{shape:<14}{row.number:>6}{row.bytes:>14,}  {row.name}{fault}"


def all_matrices(folder: ExportFolder) -> list[StoredMatrix]:
    """The matrices of all graphs, after the embedding."""
    embedding = [folder.embedding] if folder.embedding else []
    return [*embedding, *folder.graph.matrices, *_matrices_of_parts(folder)]


def compare_with_recipe(folder: ExportFolder, recipe: Recipe, required: float) -> tuple[float, str]:
    """The share of weights, the embedding's among them, that are stored as a recipe requests, and a line on it."""
    matrices = [matrix for matrix in all_matrices(folder) if matrix is not folder.embedding or not folder.is_tied]
    others = [matrix for matrix in matrices if not _is_stored_so(matrix, recipe)]
    total = sum(matrix.count for matrix in matrices)
    share = 1 - sum(matrix.count for matrix in others) / total if total else 0.0
    numbers = f"{share:.1%} of the weights, required {required:.1%}"
    if share >= required or not others:
        return share, f"expected {recipe.name}: {'ok' if share >= required else 'FAILED'}, {numbers}"
    largest = max(others, key=lambda matrix: matrix.count)
    more = f" (and {len(others) - 1} other matrices)" if len(others) > 1 else ""
    return share, f"expected {recipe.name}: FAILED, {numbers}: {shown(largest.name)} is stored as {largest.label}{more}"


def _is_stored_so(matrix: StoredMatrix, recipe: Recipe) -> bool:
    if recipe.storage is Storage.FLOAT16 or not matrix.is_quantized:
        return recipe.storage is Storage.FLOAT16 and matrix.form is Form.FLOAT16
    has_block = recipe.block is None or matrix.block == stored_block(recipe.block, matrix.columns)
    is_form = matrix.symmetric or not recipe.symmetric
    has_scales = matrix.scale_bits == 16 or not recipe.half_scales
    return matrix.bits == recipe.bits and has_block and is_form and has_scales and not recipe.activations


def _verdict(folder: ExportFolder) -> str:
    if is_broken(folder):
        return "verdict: BROKEN"
    matrices = folder.graph.matrices
    low = [matrix for matrix in matrices if matrix.is_quantized]
    share = sum(matrix.count for matrix in low) / max(1, sum(matrix.count for matrix in matrices))
    forms = ", ".join(sorted({matrix.label for matrix in matrices}))
    separate = "" if folder.is_tied or folder.embedding is None else f"; embedding {folder.embedding.label}"
    return f"verdict: {len(low)} of {len(matrices)} layers quantized, {share:.1%} of their weights ({forms}){separate}"
