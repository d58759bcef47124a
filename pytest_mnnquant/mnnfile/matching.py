"""Matches the layers of two models of one network, if tools have renamed and reordered them."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from pytest_mnnquant.mnnfile.model import BadModel, Model, Op

Signature = tuple[str, tuple[int, ...], int]


@dataclass(frozen=True)
class Match:
    """Pairs (layer of the first model, layer of the second), and the layers of either that have no partner."""

    pairs: tuple[tuple[Op, Op], ...]
    missing: tuple[Op, ...]
    extra: tuple[Op, ...]

    def partner(self, op: Op) -> Op | None:
        """The partner of a layer of the first model."""
        return next((other for layer, other in self.pairs if layer is op), None)


def signature(op: Op) -> Signature:
    """The properties of a layer without its name: its family, shape and groups."""
    family = "convolution" if op.is_convolution else op.kind
    return family, op.shape or (op.weight_count,), op.group


def match_layers(first: Model, second: Model) -> Match:
    """Match the layers of two models: by name and shape, by shape in order of execution, by shape alone, by weights."""
    pairs: list[tuple[Op, Op]] = []
    by_name = {(op.subgraph, op.name): op for op in second.layers}
    taken: set[int] = set()
    left: list[Op] = []
    for op in first.layers:
        other = by_name.get((op.subgraph, op.name))
        if other is not None and signature(other) == signature(op) and id(other) not in taken:
            pairs.append((op, other))
            taken.add(id(other))
        else:
            left.append(op)
    right = [op for op in second.layers if id(op) not in taken]
    aligned = SequenceMatcher(None, [signature(op) for op in left], [signature(op) for op in right], autojunk=False)
    for block in aligned.get_matching_blocks():
        pairs.extend(zip(left[block.a : block.a + block.size], right[block.b : block.b + block.size], strict=True))
    matched = {id(op) for pair in pairs for op in pair}
    for op in left:  # The order of branches may differ.
        alike = (other for other in right if id(other) not in matched and signature(other) == signature(op))
        if id(op) not in matched and (other := next(alike, None)) is not None:
            pairs.append((op, other))
            matched |= {id(op), id(other)}
    for op in left:  # A converter may store the same weights in an operator of another kind.
        alike = (other for other in right if id(other) not in matched and _holds_the_same(first, op, second, other))
        if id(op) not in matched and (other := next(alike, None)) is not None:
            pairs.append((op, other))
            matched |= {id(op), id(other)}
    return Match(
        tuple(pairs),
        tuple(op for op in left if id(op) not in matched),
        tuple(op for op in right if id(op) not in matched),
    )


def _holds_the_same(first: Model, op: Op, second: Model, other: Op) -> bool:
    """Whether two layers of different kinds have the same weights in any order, up to 16-bit rounding."""
    if op.weight_count != other.weight_count or len(op.weights) != 1 or len(other.weights) != 1:
        return False
    try:
        weights, other_weights = np.sort(first.decoded(op), axis=None), np.sort(second.decoded(other), axis=None)
    except BadModel:
        return False
    tolerance = 1e-3 * float(np.abs(weights).max() or 1)
    return weights.size > 1 and bool(np.allclose(weights, other_weights, rtol=0, atol=tolerance))
