"""Compares the content of two `.mnn` files; the random uuid of each conversion does not count."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from pytest_mnnquant.mnnfile.flatbuffer import BadModel, Table
from pytest_mnnquant.mnnfile.model import Model, Op

_UUID: Final = 11  # the slot of `mnn_uuid` in MNN's root table


def fingerprint(model: Model) -> str:
    """SHA-256, in hexadecimal, of the file and its external weights, with zeros for the bytes of the uuid."""
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
    """The first difference between two models of one network, as text; empty if only the uuid differs."""
    if fingerprint(first) == fingerprint(second):
        return ""
    comparisons = (_compare_operators, _compare_weights, _compare_vectors, _compare_scales)
    texts = (compare(first, second) for compare in comparisons)
    return next((text for text in texts if text), "bytes other than weights and scales")


def _compare_operators(first: Model, second: Model) -> str:
    if len(first.ops) != len(second.ops):
        return f"{len(first.ops)} operators, then {len(second.ops)}"
    for before, after in zip(first.ops, second.ops, strict=True):
        if (before.name, before.kind) != (after.name, after.kind):
            return f"operator {before.name} ({before.kind}), then {after.name} ({after.kind})"
        if _connections(before) != _connections(after):
            return f"{before.name}: connected to other tensors"
        if _storage(before) != _storage(after):
            return f"{before.name}: stored as {_storage(before)}, then as {_storage(after)}"
    return ""


def _connections(op: Op) -> tuple[object, ...]:
    return op.input_names, op.output_names, op.subgraph


def _storage(op: Op) -> str:
    return ", ".join(f"{weights.label} of {weights.size} bytes" for weights in op.weights) or "nothing"


def _compare_weights(first: Model, second: Model) -> str:
    for layer, other in zip(first.layers, second.layers, strict=True):
        try:
            before, after = first.decoded(layer), second.decoded(other)
        except BadModel:  # More than one tensor, or an error that the weights check reports.
            continue
        differing = ~((before == after) | (np.isnan(before) & np.isnan(after)))
        if differing.any():
            with np.errstate(invalid="ignore"):  # Of infinite weights.
                largest = float(np.abs(before - after)[differing].max())
            return f"{layer.name}: {int(differing.sum())} of {before.size} weights, by up to {largest:.2g}"
    return ""


def _compare_vectors(first: Model, second: Model) -> str:
    vectors = second.vectors()
    for name, vector in first.vectors().items():
        if name not in vectors or vector.tobytes() != vectors[name].tobytes():
            return f"the vectors of {name}"
    return ""


def _compare_scales(first: Model, second: Model) -> str:
    for tensor, quant in first.tensor_quants.items():
        if quant != second.tensor_quants.get(tensor):
            return f"the scale of tensor {first.tensor_names[tensor]!r}"
    return ""
