"""Writes what an export stores as a checkpoint in float32, for a library that computes architectures numpy does not.

Matrices are the decoded ones. Norms, biases and all other tensors are the source's, which `weights` compares.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from pytest_mnnquant.llm.architecture import UnknownArchitecture
from pytest_mnnquant.llm.binding import Binding
from pytest_mnnquant.llm.bound import BoundMatrix
from pytest_mnnquant.llm.checkpoint import Checkpoint
from pytest_mnnquant.llm.comparison import check_shape
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.matrix import decode_rows, row_chunks
from pytest_mnnquant.llm.safetensors import TensorEntry
from pytest_mnnquant.mnnfile.storage import Floats

_FILE: Final = "model.safetensors"
_HEAD: Final = "lm_head"
_CONFIG: Final = "config.json"


def write_decoded(folder: ExportFolder, source: Checkpoint, binding: Binding, target: Path) -> None:
    """Write the checkpoint into the folder `target`, some rows at a time.

    Raises `UnknownArchitecture` if the export has matrices that no tensor of the source is known for, `BadExport` if a
    matrix can't be decoded, `OSError`.
    """
    if binding.unbound or not source.has_values or source.is_gptq:
        reason = f"{binding.unbound[0].name} has no tensor in the source" if binding.unbound else "no float weights"
        raise UnknownArchitecture(f"the decoded weights can't be put into the source: {reason}")
    config = json.loads((source.path / _CONFIG).read_text(encoding="utf-8"))
    for section in (config, config.get("text_config")):
        if isinstance(section, dict):
            section["tie_word_embeddings"] = False  # The head may have other codes than the embedding.
    (target / _CONFIG).write_text(json.dumps(config), encoding="utf-8")
    places = _places(binding, source)
    entries = {name: entry.shape for name, entry in source.tensors.items() if entry.is_float}
    entries |= {name: source.tensors[bound[0].source.weight].shape for name, bound in places.items()}
    with (target / _FILE).open("wb") as file:
        file.write(_header(entries))
        for name in entries:
            for rows in _rows(name, places, folder, source):
                file.write(np.ascontiguousarray(rows, "<f4").tobytes())


def _places(binding: Binding, source: Checkpoint) -> dict[str, list[BoundMatrix]]:
    """The matrices that make each tensor, in order of rows."""
    places: dict[str, list[BoundMatrix]] = {}
    for bound in binding.matrices:
        check_shape(bound.stored, source, bound.source)
        is_tied_head = _HEAD in bound.stored.name and _HEAD not in bound.source.stem
        places.setdefault(f"{_HEAD}.weight" if is_tied_head else bound.source.weight, []).append(bound)
    for name, parts in places.items():
        parts.sort(key=lambda bound: bound.source.start)
        rows = sum(bound.source.stop - bound.source.start for bound in parts)
        if rows != source.tensors[parts[0].source.weight].shape[0]:
            raise UnknownArchitecture(f"the export stores {rows} rows of {name}")
    return places


def _header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    start, entries = 0, {}
    for name, shape in shapes.items():
        stop = start + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    return struct.pack("<Q", len(header)) + header


def _rows(
    name: str, places: Mapping[str, list[BoundMatrix]], folder: ExportFolder, source: Checkpoint
) -> Iterator[Floats]:
    for bound in places.get(name, ()):
        data = folder.data(bound.stored.file)
        for start, stop in row_chunks(bound.stored.rows, bound.stored.columns):
            yield decode_rows(bound.stored, data, start, stop)
    if name not in places:
        entry: TensorEntry = source.tensors[name]
        rows = entry.shape[0] if entry.shape else 1
        columns = math.prod(entry.shape[1:])
        for start, stop in row_chunks(rows, columns):
            yield source.rows(name, start, stop)
