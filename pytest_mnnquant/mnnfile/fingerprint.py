"""Whether two `.mnn` files hold the same, and where they do not; the random uuid of each conversion is no content."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from pytest_mnnquant.mnnfile.flatbuffer import BadModel, Table
from pytest_mnnquant.mnnfile.model import Model, Op

_UUID: Final = 11  # the slot of `mnn_uuid` in MNN's root table


def fingerprint(model: Model) -> str:
    """SHA-256, in hexadecimal, of the file and its external weights, the bytes of the uuid being zeros."""
    total = hashlib.sha256()
    content = model.bytes_at(0, model.main_size)
    assert content is not None
    start, length = Table.root(content).span(_UUID, 1)
    total.update(content[:start])
    total.update(bytes(length))
    total.update(content[start + length :])
    external = model.bytes_at(0, model.size - model.main_size, external=True)
    if external is not None:
        total.update(external)
    return total.hexdigest()


def difference(first: Model, second: Model) -> str:
    """Where two models of one network first differ, in words; empty where only the uuid does."""
    if fingerprint(first) == fingerprint(second):
        return ""
    if len(first.ops) != len(second.ops):
        return f"{len(first.ops)} operators, then {len(second.ops)}"
    for ours, theirs in zip(first.ops, second.ops, strict=True):
        if (ours.name, ours.kind) != (theirs.name, theirs.kind):
            return f"operator {ours.name} ({ours.kind}), then {theirs.name} ({theirs.kind})"
        if _joined(ours) != _joined(theirs):
            return f"{ours.name}: it is joined to other tensors"
        if _storage(ours) != _storage(theirs):
            return f"{ours.name}: stored as {_storage(ours)}, then as {_storage(theirs)}"
    for ours, theirs in zip(first.layers, second.layers, strict=True):
        if found := _weights(first, ours, second, theirs):
            return f"{ours.name}: {found}"
    vectors = second.vectors()
    for name, vector in first.vectors().items():
        if name not in vectors or vector.tobytes() != vectors[name].tobytes():
            return f"the vectors of {name}"
    for tensor, quant in first.tensor_quants.items():
        if quant != second.tensor_quants.get(tensor):
            return f"the scale of tensor {first.tensor_names[tensor]!r}"
    return "bytes that hold neither weights nor scales"


def _joined(op: Op) -> tuple[object, ...]:
    return op.input_names, op.output_names, op.subgraph


def _storage(op: Op) -> str:
    return ", ".join(f"{one.label} of {one.size} bytes" for one in op.weights) or "nothing"


def _weights(first: Model, ours: Op, second: Model, theirs: Op) -> str:
    try:
        one, other = first.decoded(ours), second.decoded(theirs)
    except BadModel:  # More than one tensor, or a layer that the weights check accuses.
        return ""
    differing = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    if not differing.any():
        return ""
    largest = float(np.abs(one - other)[differing].max())
    return f"{int(differing.sum())} of {one.size} weights, by up to {largest:.2g}"
