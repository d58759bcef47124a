"""`diff` of two folders of language model exports, as JSON and as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.cli.llm_tables import all_matrices
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.llm.config import TiedPlace
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import StoredMatrix, decode_rows, row_chunks
from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.fingerprint import fingerprint
from pytest_mnnquant.mnnfile.model import BadModel, read_model
from pytest_mnnquant.report.width import shown


def export_difference(first: ExportFolder, second: ExportFolder) -> dict[str, Any]:
    """What changed from one export to another: files, forms, decoded weights, embedding, tokenizer, configuration."""
    before, after = ({matrix.name: matrix for matrix in all_matrices(folder)} for folder in (first, second))
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
