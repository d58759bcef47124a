"""Classifies the bytes of a model: every byte of its files belongs to one class, and the classes add up to its size.

Classes: the weights by their storage (`float32`, `w8`, `int8`, ...), `scales` of quantized weights,
`vectors` (bias, normalization), `constants` that are not weights (shapes, indexes), and `graph` (all the rest of the
flatbuffer: operators, names, tables, padding). Bytes of the `.mnn.weight` file count in the same classes; those without
a reference from an operator are `unused`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import VECTORS, Model, Op
from pytest_mnnquant.mnnfile.storage import Storage

GRAPH, SCALES, VECTOR, CONSTANT, UNUSED = "graph", "scales", "vectors", "constants", "unused"
_BLOB_SLOTS: Final = ((3, 1), (4, 1), (5, 4), (6, 8), (7, 4))
# Smaller runs may be equal by chance (all zeros), and sharing them would save nothing.
_LOOK: Final = 1024


@dataclass(frozen=True, slots=True)
class Part:
    """A run of bytes: its class, its operator and its file."""

    kind: str
    op: str
    start: int
    size: int
    external: bool = False


@dataclass(frozen=True)
class Ledger:
    """Bytes by class, adding up to the size of the model's files.

    `shared` lists groups of operators that reference the same bytes (counted once), `duplicated` groups with equal
    bytes at several places (counted each time).
    """

    classes: dict[str, int]
    parts: tuple[Part, ...]
    shared: tuple[tuple[str, ...], ...]
    duplicated: tuple[tuple[str, ...], ...]

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.classes.values())


def account(model: Model) -> Ledger:
    """Classify every byte of a model. Raises `BadModel` for a damaged file."""
    parts = tuple(part for op in model.ops for part in _parts(op) if part.size > 0)
    holders: dict[tuple[bool, int, int], list[Part]] = defaultdict(list)
    for part in parts:
        holders[part.external, part.start, part.size].append(part)
    classes: Counter[str] = Counter()
    for external, size in ((False, model.main_size), (True, model.size - model.main_size)):
        end = placed = 0
        for key in sorted(key for key in holders if key[0] is external):
            start, stop = max(key[1], end), min(key[1] + key[2], size)
            if stop > start:  # Overlapping runs count once; runs past the end of a truncated file do not count.
                classes[holders[key][0].kind] += stop - start
                placed, end = placed + stop - start, stop
        rest = size - placed
        if rest:
            classes[UNUSED if external else GRAPH] += rest
    distinct = [same[0] for same in holders.values()]
    shared = tuple(tuple(part.op for part in same) for same in holders.values() if len(same) > 1)
    return Ledger(dict(classes), parts, shared, _duplicates(model, distinct))


def _duplicates(model: Model, parts: list[Part]) -> tuple[tuple[str, ...], ...]:
    """Groups of operators with equal bytes. Compares the start of each run first, to read few pages."""

    def grouped(candidates: list[Part], size: int | None) -> Iterator[list[Part]]:
        alike: dict[tuple[int, bytes], list[Part]] = defaultdict(list)
        for part in candidates:
            data = model.bytes_at(part.start, size or part.size, part.external)
            if data is not None:
                alike[part.size, hashlib.sha256(data).digest()].append(part)
        return (group for group in alike.values() if len(group) > 1)

    large = [part for part in parts if part.size >= _LOOK and part.kind not in (SCALES, CONSTANT)]
    groups = (group for similar in grouped(large, _LOOK) for group in grouped(similar, None))
    return tuple(tuple(part.op for part in group) for group in groups)


def _parts(op: Op) -> Iterator[Part]:
    if op.parameters is None:
        return
    if op.parameter_kind in VECTORS:
        yield from _vectors(op, op.parameters)
    elif op.parameter_kind in _READERS:
        yield from _READERS[op.parameter_kind](op, op.parameters)


def _vectors(op: Op, table: Table) -> Iterator[Part]:
    slots, external = VECTORS[op.parameter_kind]
    kind = "float32" if op.is_layer else VECTOR
    for slot in slots:
        yield _run(op, table, slot, 4, kind)
    if external is not None:
        yield from _external(op, table, external, [kind] * 4)


def _inner_product(op: Op, table: Table) -> Iterator[Part]:
    yield _run(op, table, 3, 4, "float32")
    yield _run(op, table, 4, 4, VECTOR)
    yield from _quantized(op, table.table(7))


def _recurrent(op: Op, table: Table) -> Iterator[Part]:
    for slot in range(3, 8) if op.parameter_kind == "LSTM" else range(4, 14):
        blob = table.table(slot)
        if blob is not None:
            yield from _blob(op, blob)


def _convolution(op: Op, table: Table) -> Iterator[Part]:
    label = op.weights[0].label if op.weights else "float32"
    yield _run(op, table, 1, 4, label)
    yield _run(op, table, 2, 4, VECTOR)
    yield from _quantized(op, table.table(3))
    symmetric = table.table(4)
    if symmetric is not None:
        yield _run(op, symmetric, 0, 1, label)
        yield _run(op, symmetric, 1, 4, VECTOR)
        for slot in (2, 3, 10, 12):  # 10: scales for Winograd
            yield _run(op, symmetric, slot, 4, SCALES)
    plain = table.table(3) is None
    numbers = _numbers(op)
    yield from _external(op, table, 6, [label, VECTOR] if plain else [label, numbers, VECTOR, numbers])


def _quantized(op: Op, table: Table | None) -> Iterator[Part]:
    if table is not None:
        yield _run(op, table, 0, 1, op.weights[0].label if op.weights else "other")
        for slot, size in ((1, 4), (13, 4), (14, 2)):
            yield _run(op, table, slot, size, _numbers(op))


def _numbers(op: Op) -> str:
    """The class of the floats next to the codes: scales; weights for sparse float storage, which has no codes."""
    label = op.weights[0].label if op.weights else ""
    return label if label == Storage.SPARSE_FLOAT.value else SCALES


def _blob(op: Op, table: Table) -> Iterator[Part]:
    is_weight = bool(op.weights) and (op.is_layer or op.kind != "Const")
    kind = op.weights[0].label if is_weight else VECTOR if op.weights else CONSTANT
    for slot, size in _BLOB_SLOTS:
        yield _run(op, table, slot, size, kind)
    yield from _external(op, table, 9, [kind])


def _run(op: Op, table: Table, slot: int, item_size: int, kind: str) -> Part:
    start, count = table.span(slot, item_size)
    return Part(kind, op.name, start, count * item_size)


def _external(op: Op, table: Table, slot: int, kinds: list[str]) -> Iterator[Part]:
    """The runs in the `.mnn.weight` file: [offset, size, size, ...], one after the other."""
    place = [int(value) for value in table.array(slot, "<i8")]
    at = place[0] if place else 0
    for kind, size in zip(kinds, place[1:], strict=False):
        yield Part(kind, op.name, at, size, external=True)
        at += size


_READERS: Final[dict[str, Callable[[Op, Table], Iterator[Part]]]] = {
    "Convolution2D": _convolution,
    "Blob": _blob,
    "InnerProduct": _inner_product,
    "LSTM": _recurrent,
    "RNNParam": _recurrent,
}
