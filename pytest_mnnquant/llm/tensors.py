"""The tensors that a forward pass reads: those of a checkpoint, those that an export stores, or some of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property, partial
from typing import Final

import numpy as np

from pytest_mnnquant.llm.binding import last_norm, norm_name, rows_named, short_name, source_stems
from pytest_mnnquant.llm.bound import SourceRows
from pytest_mnnquant.llm.checkpoint import Checkpoint, read_gptq_layer
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.forward import Chunk, Ids, Tensors
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import StoredMatrix, decode_rows, read_bias, row_chunks
from pytest_mnnquant.mnnfile.storage import Floats

#: The name of the embedding.
EMBEDDING: Final = "embed_tokens"
_LAST: Final = "norm"


class SourceTensors:
    """The tensors of a checkpoint, floats or GPTQ codes."""

    def __init__(self, source: Checkpoint) -> None:
        self._source = source
        self._stems = source_stems(source)

    def rows(self, name: str) -> int:
        """Rows of a matrix."""
        place = rows_named(name, self._stems, self._source)
        if place is None:
            raise BadExport(str(self._source.path), name, "the checkpoint has no such tensor")
        return place.stop - place.start

    def chunks(self, name: str) -> Iterator[Chunk]:
        """Rows of a matrix, some at a time."""
        place = rows_named(name, self._stems, self._source)
        if place is None:
            raise BadExport(str(self._source.path), name, "the checkpoint has no such tensor")
        if place.weight not in self._source.tensors and f"{place.stem}.qweight" in self._source.tensors:
            yield 0, partial(_gptq_rows, self._source, place)
            return
        columns = int(np.prod(self._source.tensors[place.weight].shape[1:]))
        for start, stop in row_chunks(place.stop - place.start, columns):
            yield start, partial(_source_rows, self._source, place, (start, stop), columns)

    def bias(self, name: str) -> Floats | None:
        """The bias of a matrix."""
        place = rows_named(name, self._stems, self._source)
        if place is None or place.bias not in self._source.tensors:
            return None
        return self._source.rows(place.bias, place.start, place.stop)

    def norm(self, name: str) -> Floats | None:
        """The weight of a norm."""
        stem = last_norm(self._stems) if name == _LAST else self._stems.get(name, "")
        tensor = f"{stem}.weight"
        return self._source.rows(tensor) if tensor in self._source.tensors else None

    def embedded(self, ids: Ids) -> Floats:
        """The embeddings of tokens."""
        tensor = f"{self._stems.get(EMBEDDING, EMBEDDING)}.weight"
        chosen, places = np.unique(ids, return_inverse=True)
        rows = np.concatenate([self._source.rows(tensor, int(token), int(token) + 1) for token in chosen])
        values: Floats = rows[places].reshape(*ids.shape, -1)
        return values


def _gptq_rows(source: Checkpoint, place: SourceRows) -> Floats:
    return read_gptq_layer(source, place.stem).decoded()[place.start : place.stop]


def _source_rows(source: Checkpoint, place: SourceRows, rows: tuple[int, int], columns: int) -> Floats:
    start, stop = (place.start + row for row in rows)
    return source.rows(place.weight, start, stop).reshape(-1, columns)


class StoredTensors:
    """The tensors that an export stores, decoded as its runtime should."""

    def __init__(self, folder: ExportFolder) -> None:
        self._folder = folder

    @cached_property
    def _matrices(self) -> dict[str, StoredMatrix]:
        return {short_name(matrix.name): matrix for matrix in self._folder.graph.matrices}

    @cached_property
    def _norms(self) -> dict[str, Floats]:
        norms: dict[str, Floats] = {}
        for vector in (*self._folder.graph.vectors, *self._folder.graph.constants):
            name = norm_name(vector.name)
            if name or vector.kind == "LayerNorm":
                norms.setdefault(name or _LAST, vector.values)
        return norms

    def _matrix(self, name: str) -> StoredMatrix:
        if name not in self._matrices:
            raise BadExport(self._folder.graph.file, name, "the graph has no such matrix")
        return self._matrices[name]

    def rows(self, name: str) -> int:
        """Rows of a matrix."""
        return self._matrix(name).rows

    def chunks(self, name: str) -> Iterator[Chunk]:
        """Rows of a matrix, some at a time."""
        matrix = self._matrix(name)
        data = self._folder.data(matrix.file)
        for start, stop in row_chunks(matrix.rows, matrix.columns):
            yield start, partial(decode_rows, matrix, data, start, stop)

    def bias(self, name: str) -> Floats | None:
        """The bias of a matrix."""
        matrix = self._matrix(name)
        return read_bias(matrix, self._folder.data(matrix.file)) if matrix.bias.length > 0 else None

    def norm(self, name: str) -> Floats | None:
        """The weight of a norm."""
        return self._norms.get(name)

    def embedded(self, ids: Ids) -> Floats:
        """The embeddings of tokens."""
        matrix = self._folder.embedding
        if matrix is None:
            raise BadExport(self._folder.config.file("embedding_file"), EMBEDDING, "the embedding can't be read")
        if int(ids.max(initial=0)) >= matrix.rows:
            raise BadExport(matrix.file, EMBEDDING, f"token {int(ids.max())} is beyond its {matrix.rows:,} rows")
        data = self._folder.data(matrix.file)
        chosen, places = np.unique(ids, return_inverse=True)
        rows = [self._row(matrix, data, int(token)) for token in chosen]
        values: Floats = np.stack(rows)[places].reshape(*ids.shape, -1)
        return values

    @staticmethod
    def _row(matrix: StoredMatrix, data: memoryview, token: int) -> Floats:
        first = token // 8 * 8  # Rows are decoded from a multiple of 8 on.
        row: Floats = decode_rows(matrix, data, first, min(first + 8, matrix.rows))[token - first]
        return row


class MixedTensors:
    """The tensors of `base`, except those of these `names`, which are taken from `other`.

    A name is that of a matrix (with its bias), of a norm, or `embed_tokens`.
    """

    def __init__(self, base: Tensors, other: Tensors, names: Collection[str]) -> None:
        self._base, self._other, self._names = base, other, frozenset(names)

    def _of(self, name: str) -> Tensors:
        return self._other if name in self._names else self._base

    def rows(self, name: str) -> int:
        """Rows of a matrix."""
        return self._of(name).rows(name)

    def chunks(self, name: str) -> Iterator[Chunk]:
        """Rows of a matrix, some at a time."""
        return self._of(name).chunks(name)

    def bias(self, name: str) -> Floats | None:
        """The bias of a matrix."""
        return self._of(name).bias(name)

    def norm(self, name: str) -> Floats | None:
        """The weight of a norm."""
        return self._of(name).norm(name)

    def embedded(self, ids: Ids) -> Floats:
        """The embeddings of tokens."""
        return self._of(EMBEDDING).embedded(ids)
