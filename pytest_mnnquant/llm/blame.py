"""Which weights of an export cost most: those of one layer, or of one matrix, take the place of the source's.

The hidden states of the source before each layer are computed once, so that only the layers after a change follow.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pytest_mnnquant.llm.forward import HEAD, MATRICES, Ids, Network, Tensors
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.tensors import EMBEDDING, MixedTensors
from pytest_mnnquant.metrics.divergence import divergence
from pytest_mnnquant.mnnfile.storage import Floats

_NORMS: Final = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")


@dataclass(frozen=True, slots=True)
class Blamed:
    """The name of a layer (`layers.3`), a matrix (`layers.3.mlp.up_proj`), the head or the embedding, and its cost.

    `kl` is the mean KL divergence, in nats per token, if only these weights are the export's.
    """

    name: str
    kl: float


def blame(source: Network, stored: Tensors, ids: Ids, seconds: float) -> tuple[Blamed, ...]:
    """The costs of all layers, and of the matrices of the most expensive one, largest first.

    Ends after about `seconds`, with what is known then. Raises `BadExport`.
    """
    deadline = time.monotonic() + seconds
    states = source.states(ids)
    reference = _logits(source, states[-1], _size(source))
    parts = [(EMBEDDING, -1, (EMBEDDING,)), (HEAD, len(states) - 1, (HEAD, "norm"))]
    parts += [(f"layers.{number}", number, _names(number)) for number in range(source.architecture.layers)]
    costs = list(_costs(source, stored, (ids, states, reference), parts, deadline))
    costs.sort(key=lambda item: -item.kl)
    worst = costs[0].name.partition(".")[2] if costs else ""
    if worst:
        matrices = [(f"layers.{worst}.{name}", int(worst), (f"{worst}.{name}",)) for name in MATRICES]
        found = sorted(_costs(source, stored, (ids, states, reference), matrices, deadline), key=lambda item: -item.kl)
        if found and found[0].kl > 0.3 * costs[0].kl:  # Otherwise the layer as a whole says more.
            return (*found[:1], *costs[1:])
    return tuple(costs)


_Part = tuple[str, int, tuple[str, ...]]
_Known = tuple[Ids, Sequence[Floats], Floats]


def _costs(
    source: Network, stored: Tensors, known: _Known, parts: Sequence[_Part], deadline: float
) -> Iterator[Blamed]:
    ids, states, reference = known
    for name, number, names in parts:
        if time.monotonic() > deadline:
            return
        changed = dataclasses.replace(source, tensors=MixedTensors(source.tensors, stored, names))
        try:
            logits = _logits(changed, _last_state(source, changed, number, (ids, states)), reference.shape[-1])
        except BadExport:
            continue  # Reported by the checks of files.
        yield Blamed(name, float(divergence(ids, reference, logits).kl.mean()))


def _last_state(source: Network, changed: Network, number: int, known: tuple[Ids, Sequence[Floats]]) -> Floats:
    ids, states = known
    layers = source.architecture.layers
    if number < 0:
        hidden = changed.tensors.embedded(ids)
    elif number < layers:
        hidden = changed.layer(number, states[number])
    else:
        return states[-1]
    for following in range(number + 1, layers):
        hidden = source.layer(following, hidden)
    return hidden


def _logits(network: Network, hidden: Floats, vocabulary: int) -> Floats:
    out = np.empty((*hidden.shape[:2], vocabulary), np.float32)
    network.head(hidden, out)
    return out


def _size(network: Network) -> int:
    return network.tensors.rows(HEAD)


def _names(number: int) -> tuple[str, ...]:
    return tuple(f"{number}.{name}" for name in (*MATRICES, *_NORMS))
