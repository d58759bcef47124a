"""Weights of a source, rounded as exporters round them: to try another form before the model is exported again.

Codes of a block: round((weight - smallest) / scale) with scale = (largest - smallest) / (2^bits - 1), or symmetric:
round(weight / scale) with scale = largest magnitude / (2^(bits - 1) - 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from pytest_mnnquant.llm.forward import HEAD, Chunk, Ids, Tensors
from pytest_mnnquant.llm.options import LayerRequest
from pytest_mnnquant.llm.requests import stored_block
from pytest_mnnquant.llm.tensors import EMBEDDING
from pytest_mnnquant.mnnfile.storage import Floats


class RequantizedTensors:
    """The tensors of a source with rounded matrices; `requests` are the forms by name, `other` that of all others.

    `is_tied`: the embedding is the head.
    """

    def __init__(
        self, source: Tensors, requests: Mapping[str, LayerRequest], other: LayerRequest, *, is_tied: bool
    ) -> None:
        self._source, self._requests, self._other, self._is_tied = source, requests, other, is_tied

    def _request(self, name: str) -> LayerRequest:
        return self._requests.get(name, self._other)

    def rows(self, name: str) -> int:
        """Rows of a matrix."""
        return self._source.rows(name)

    def chunks(self, name: str) -> Iterator[Chunk]:
        """Rows of a matrix, some at a time, rounded."""
        request = self._request(name)
        for start, read in self._source.chunks(name):
            yield start, partial(_read_rounded, read, request)

    def bias(self, name: str) -> Floats | None:
        """The bias of a matrix."""
        return self._source.bias(name)

    def norm(self, name: str) -> Floats | None:
        """The weight of a norm."""
        return self._source.norm(name)

    def embedded(self, ids: Ids) -> Floats:
        """The embeddings of tokens, rounded as the head or as the request for the embedding says."""
        request = self._request(HEAD) if self._is_tied else self._requests.get(EMBEDDING, LayerRequest(16, 0, False))
        values = self._source.embedded(ids)
        return rounded(values.reshape(-1, values.shape[-1]), request).reshape(values.shape)


def _read_rounded(read: Callable[[], Floats], request: LayerRequest) -> Floats:
    return rounded(read(), request)


def rounded(rows: Floats, request: LayerRequest) -> Floats:
    """Rows [rows, columns] rounded to a form; 16 bits are float16."""
    if request.bits >= 16:
        return rows.astype(np.float16).astype(np.float32)
    block = stored_block(request.block, rows.shape[-1])
    groups = rows.reshape(len(rows), -1, block)
    round_groups: Callable[[Floats, int], Floats] = _symmetric if request.symmetric else _asymmetric
    return round_groups(groups, request.bits).reshape(rows.shape)


def _asymmetric(groups: Floats, bits: int) -> Floats:
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    scale = np.maximum((high - low) / np.float32((1 << bits) - 1), np.float32(1e-12))
    values: Floats = np.round((groups - low) / scale) * scale + low
    return values.astype(np.float32, copy=False)


def _symmetric(groups: Floats, bits: int) -> Floats:
    largest = np.float32((1 << bits - 1) - 1)
    scale = np.maximum(np.abs(groups).max(-1, keepdims=True) / largest, np.float32(1e-12))
    values: Floats = np.clip(np.round(groups / scale), -largest - 1, largest) * scale
    return values.astype(np.float32, copy=False)
