"""`inspect` and `diff` of the folder of a language model's export, as JSON and as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.llm.config import TiedPlace
from pytest_mnnquant.llm.extents import FileMap
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import Form, StoredMatrix, decode_rows, row_chunks
from pytest_mnnquant.llm.requests import stored_block
from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.fingerprint import fingerprint
from pytest_mnnquant.mnnfile.model import BadModel, read_model
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


def compare_with_recipe(folder: ExportFolder, recipe: Recipe, required: float) -> tuple[float, str]:
    """The share of weights, the embedding's among them, that are stored as a recipe requests, and a line on it."""
    matrices = [matrix for matrix in _all(folder) if matrix is not folder.embedding or not folder.is_tied]
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


def export_difference(first: ExportFolder, second: ExportFolder) -> dict[str, Any]:
    """What changed from one export to another: files, forms, decoded weights, embedding, tokenizer, configuration."""
    before, after = ({matrix.name: matrix for matrix in _all(folder)} for folder in (first, second))
    rows = [row for name in before if name in after and (row := _changed(first, second, before[name], after[name]))]
    files = {
        name: [first.sizes.get(name), second.sizes.get(name)]
        for name in sorted(first.sizes.keys() | second.sizes.keys())
        if first.sizes.get(name) != second.sizes.get(name)
    }
    settings = {
        key: [str(old), str(new)]
        for key, old, new in (
            ("model_type", first.config.model_type, second.config.model_type),
            ("hidden_size", first.config.hidden_size, second.config.hidden_size),
            ("chat_template", first.config.chat_template, second.config.chat_template),
            ("tie_embeddings", _place(first.config.tied), _place(second.config.tied)),
            ("made_by", first.graph.version, second.graph.version),
        )
        if old != new
    }
    result = {
        "bytes": [first.size, second.size],
        "files": files,
        "content": _other_content(first, second),
        "only_in_first": [name for name in before if name not in after],
        "only_in_second": [name for name in after if name not in before],
        "layers": rows,
        "vectors": _changed_vectors(first, second),
        "settings": settings,
        "tokenizer": first.tokenizer != second.tokenizer,
    }
    return {**result, "same": not any(value for key, value in result.items() if key != "bytes")}


def _other_content(first: ExportFolder, second: ExportFolder) -> list[str]:
    """The files with the same name and size that differ in other bytes than the uuid of a model."""
    names = [name for name, size in first.sizes.items() if second.sizes.get(name) == size]
    return [name for name in sorted(names) if _file_digest(first.path / name) != _file_digest(second.path / name)]


def _file_digest(path: Path) -> str:
    try:
        return fingerprint(read_model(path)) if path.suffix == ".mnn" else file_digest(path)
    except BadModel:
        return file_digest(path)


def _place(tied: TiedPlace | None) -> str:
    if tied is None:
        return "none"
    scales = f"scales at {tied.alpha_offset}, {tied.alpha_size} bytes of {tied.scale_bits} bits"
    return f"codes at {tied.weight_offset}, {tied.bits} bits, block {tied.block}, {scales}"


def _all(folder: ExportFolder) -> list[StoredMatrix]:
    embedding = [folder.embedding] if folder.embedding else []
    return [*embedding, *folder.graph.matrices, *_matrices_of_parts(folder)]


def _changed_vectors(first: ExportFolder, second: ExportFolder) -> list[str]:
    old, new = ({vector.name: vector.values for vector in folder.graph.vectors} for folder in (first, second))
    return [name for name in old if name not in new or not np.array_equal(old[name], new[name])]


def _changed(first: ExportFolder, second: ExportFolder, old: StoredMatrix, new: StoredMatrix) -> dict[str, Any] | None:
    row: dict[str, Any] = {"name": old.name}
    for key in ("label", "symmetric", "scale_bits", "rows", "columns"):
        if getattr(old, key) != getattr(new, key):
            row["stored" if key == "label" else key] = [getattr(old, key), getattr(new, key)]
    try:
        if (old.rows, old.columns) == (new.rows, new.columns):
            row |= _compared(first, second, old, new)
    except BadExport as error:
        row["unreadable"] = str(error)
    return row if len(row) > 1 else None


def _compared(first: ExportFolder, second: ExportFolder, old: StoredMatrix, new: StoredMatrix) -> dict[str, Any]:
    """The ratio of signal to difference over the chunk of rows that differs most, in dB; empty if all are equal."""
    worst = None
    before, after = first.data(old.file), second.data(new.file)
    for start, stop in row_chunks(old.rows, old.columns):
        values, others = decode_rows(old, before, start, stop), decode_rows(new, after, start, stop)
        if not np.array_equal(values, others):
            ratio = sqnr_db(values.reshape(-1), others.reshape(-1))
            worst = ratio if worst is None else min(worst, ratio)
    return {} if worst is None else {"weight_sqnr_db": worst}


def export_difference_text(changes: dict[str, Any]) -> str:
    """A difference as text."""
    if changes["same"]:
        return "no difference"
    before, after = changes["bytes"]
    lines = [f"bytes: {before:,} -> {after:,}" + (f" ({size_text(before / after)})" if after else "")]
    lines += [f"{name}: {_bytes(old)} -> {_bytes(new)}" for name, (old, new) in changes["files"].items()]
    lines += [f"{name}: the content differs" for name in changes["content"]]
    lines += [f"only in the first: {name}" for name in changes["only_in_first"]]
    lines += [f"only in the second: {name}" for name in changes["only_in_second"]]
    for row in changes["layers"]:
        parts = [f"{key} {_arrow(value)}" for key, value in row.items() if key != "name"]
        lines.append(f"{row['name']}: {', '.join(parts)}")
    lines += [f"{name}: the values differ" for name in changes["vectors"]]
    lines += [f"{key}: {old} -> {new}" for key, (old, new) in changes["settings"].items()]
    lines += ["the tokenizers differ"] if changes["tokenizer"] else []
    return "\n".join(map(shown, lines))


def _bytes(size: int | None) -> str:
    return "missing" if size is None else f"{size:,} bytes"


def _arrow(value: Any) -> str:
    if isinstance(value, list):
        return " -> ".join(str(item) for item in value)
    return f"{value:.1f}" if isinstance(value, float) else str(value)
