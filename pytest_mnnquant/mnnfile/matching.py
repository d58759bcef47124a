"""Which layer of one model is which layer of another, when tools have renamed and reordered them."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

from pytest_mnnquant.mnnfile.model import Model, Op

Signature = tuple[str, tuple[int, ...], int]


@dataclass(frozen=True)
class Match:
    """Pairs (layer of the first model, layer of the second), and the layers of either that have no partner."""

    pairs: tuple[tuple[Op, Op], ...]
    missing: tuple[Op, ...]
    extra: tuple[Op, ...]

    def partner(self, op: Op) -> Op | None:
        """The partner of a layer of the first model."""
        return next((other for mine, other in self.pairs if mine is op), None)


def signature(op: Op) -> Signature:
    """What a layer is, whatever it is called: its family, shape and groups."""
    family = "convolution" if op.is_convolution else op.kind
    return family, op.shape or (op.weight_count,), op.group


def match_layers(first: Model, second: Model) -> Match:
    """Match the layers of two models: by name and shape, then by shape in order of execution, then by shape alone."""
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
    for op in left:  # Branches may be written in another order.
        alike = (other for other in right if id(other) not in matched and signature(other) == signature(op))
        if id(op) not in matched and (other := next(alike, None)) is not None:
            pairs.append((op, other))
            matched |= {id(op), id(other)}
    return Match(
        tuple(pairs),
        tuple(op for op in left if id(op) not in matched),
        tuple(op for op in right if id(op) not in matched),
    )
