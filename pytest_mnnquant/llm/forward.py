"""A forward pass in float32 with numpy, one matrix at a time: at most some rows of one matrix are decoded in memory.

Names are those of `binding`: `3.mlp.up_proj`, `3.input_layernorm`, `norm`, `lm_head`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.llm.architecture import Architecture
from pytest_mnnquant.llm.threads import in_threads
from pytest_mnnquant.mnnfile.storage import Floats

Ids = npt.NDArray[np.int64]
#: Where some rows of a matrix start, and what reads them.
Chunk = tuple[int, Callable[[], Floats]]
HEAD: Final = "lm_head"
#: The matrices of a layer, in order of use.
MATRICES: Final = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)


class Tensors(Protocol):
    """The tensors of a model, by name; reading raises `BadExport`."""

    def rows(self, name: str) -> int:
        """Rows (output features) of a matrix."""
        ...

    def chunks(self, name: str) -> Iterator[Chunk]:
        """Rows of a matrix, some at a time: reading gives the shape [rows, inputs], in any thread."""
        ...

    def bias(self, name: str) -> Floats | None:
        """The bias of a matrix, shape [rows]; None if it has none."""
        ...

    def norm(self, name: str) -> Floats | None:
        """The weight of a norm; None if the model has no such norm."""
        ...

    def embedded(self, ids: Ids) -> Floats:
        """The embeddings of tokens, shape [*ids.shape, hidden size]."""
        ...


@dataclass(frozen=True)
class Network:
    """An architecture with its tensors."""

    architecture: Architecture
    tensors: Tensors

    def logits(self, ids: Ids, out: Floats) -> None:
        """Write the logits of texts `ids` [texts, tokens] to `out` [texts, tokens, vocabulary]. Raises `BadExport`."""
        hidden = self.tensors.embedded(ids)
        for layer in range(self.architecture.layers):
            hidden = self.layer(layer, hidden)
        self.head(hidden, out)

    def states(self, ids: Ids) -> list[Floats]:
        """The hidden states before each layer, and after the last, each [texts, tokens, hidden size]."""
        states = [self.tensors.embedded(ids)]
        for layer in range(self.architecture.layers):
            states.append(self.layer(layer, states[-1]))
        return states

    def layer(self, number: int, hidden: Floats) -> Floats:
        """The hidden states after one layer, shape [texts, tokens, hidden size]."""
        with np.errstate(all="ignore"):  # Of weights that are not finite.
            hidden = hidden + self._attention(number, self._norm(f"{number}.input_layernorm", hidden))
            normal = self._norm(f"{number}.post_attention_layernorm", hidden)
            gate = self._linear(f"{number}.mlp.gate_proj", normal)
            gate = gate / (1 + np.exp(-gate)) * self._linear(f"{number}.mlp.up_proj", normal)
            return hidden + self._linear(f"{number}.mlp.down_proj", gate)

    def head(self, hidden: Floats, out: Floats) -> None:
        """Write the logits of the last hidden states to `out` [texts, tokens, vocabulary]."""
        with np.errstate(all="ignore"):
            normal = self._norm("norm", hidden)
            flat, target = normal.reshape(-1, normal.shape[-1]), out.reshape(-1, out.shape[-1])
            _multiply(flat, self.tensors.chunks(HEAD), target)

    def _linear(self, name: str, values: Floats) -> Floats:
        flat = values.reshape(-1, values.shape[-1])  # One product of two matrices is faster than one per text.
        result = np.empty((len(flat), self.tensors.rows(name)), np.float32)
        _multiply(flat, self.tensors.chunks(name), result)
        bias = self.tensors.bias(name)
        if bias is not None:
            result += bias
        return result.reshape(*values.shape[:-1], -1)

    def _norm(self, name: str, values: Floats) -> Floats:
        weight = self.tensors.norm(name)
        if weight is None:
            return values
        power = np.mean(values**2, axis=-1, keepdims=True)
        normal: Floats = values / np.sqrt(power + np.float32(self.architecture.epsilon)) * weight
        return normal

    def _attention(self, number: int, values: Floats) -> Floats:
        sizes, prefix = self.architecture, f"{number}.self_attn"
        texts, tokens, _ = values.shape
        query, key, value = (
            self._linear(f"{prefix}.{name}_proj", values).reshape(texts, tokens, -1, sizes.head_size) for name in "qkv"
        )
        query = self._rotated(self._norm(f"{prefix}.q_norm", query))
        key = self._rotated(self._norm(f"{prefix}.k_norm", key))
        shared = sizes.heads // sizes.key_value_heads
        key, value = (np.repeat(item, shared, axis=2) for item in (key, value))
        mixed = np.empty_like(query)
        for text in range(texts):  # The scores of all texts at once need too much memory.
            mixed[text] = _attend(query[text], key[text], value[text], sizes.window(number))
        return self._linear(f"{prefix}.o_proj", mixed.reshape(texts, tokens, -1))

    def _rotated(self, values: Floats) -> Floats:
        """Values [texts, tokens, heads, head size] rotated by their positions: halves are the sides of each pair."""
        positions = np.arange(values.shape[1], dtype=np.float64)
        angles = positions[:, None] * self.architecture.frequencies.astype(np.float64)
        cosines, sines = (np.tile(of(angles), 2)[:, None].astype(np.float32) for of in (np.cos, np.sin))
        half = values.shape[-1] // 2
        turned = np.concatenate([-values[..., half:], values[..., :half]], axis=-1)
        rotated: Floats = (values * cosines + turned * sines).astype(np.float32, copy=False)
        return rotated


def _multiply(values: Floats, chunks: Iterable[Chunk], out: Floats) -> None:
    """Write the products of `values` [tokens, inputs] with the rows of a matrix to `out` [tokens, rows]."""

    def multiply(chunk: Chunk) -> None:
        start, read = chunk
        rows = read()
        out[:, start : start + len(rows)] = values @ rows.T

    in_threads(multiply, chunks)


def _attend(query: Floats, key: Floats, value: Floats, window: int) -> Floats:
    """Causal attention of one text; all have the shape [tokens, heads, head size]. A `window` of 0 has no limit."""
    tokens, _, size = query.shape
    scores = query.transpose(1, 0, 2) @ key.transpose(1, 2, 0) / np.float32(np.sqrt(size))
    distance = np.arange(tokens)[:, None] - np.arange(tokens)
    scores[:, (distance < 0) | (distance >= (window or tokens))] = -np.inf
    weights: Floats = np.exp(scores - scores.max(-1, keepdims=True)).astype(np.float32)
    weights /= weights.sum(-1, keepdims=True)
    mixed: Floats = np.matmul(weights, value.transpose(1, 0, 2)).transpose(1, 0, 2).astype(np.float32)
    return mixed


def matrix_names(layers: Sequence[int]) -> list[str]:
    """The names of all matrices of these layers, in order of use."""
    return [f"{layer}.{name}" for layer in layers for name in MATRICES]
