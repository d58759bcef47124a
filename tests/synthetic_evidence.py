"""Evidence made by hand: small operators and models in which a fault is easily planted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.storage import Storage, Weights

INT8: dict[str, Any] = {"bits": 8, "full_int8": True, "scale_in": 0.5, "scale_out": 0.25}


def stored(count: int, storage: Storage = Storage.FLOAT32, bits: int = 32, **more: Any) -> Weights:
    """Weights of `bits` bits each."""
    return Weights(storage, bits, count, count * bits // 8, **more)


def layer(
    name: str,
    shape: tuple[int, ...] = (8, 4, 3, 3),
    *,
    kind: str = "Convolution",
    subgraph: str = "",
    group: int = 1,
    outputs: tuple[int, ...] = (1,),
    **weights: Any,
) -> Op:
    """A layer; `weights` are the arguments of `stored`, float32 unless told."""
    count = shape[0] * shape[1] // group if len(shape) > 1 else shape[0]
    for size in shape[2:]:
        count *= size
    names = tuple(f"{name}:out" for _ in outputs)
    return Op(name, kind, (0,), outputs, ("in",), names, subgraph, shape, group, (stored(count, **weights),))


def as_int8(op: Op) -> Op:
    """The layer stored in full int8."""
    return with_weights(op, storage=Storage.INTEGER, **INT8)


def with_weights(op: Op, **weights: Any) -> Op:
    """The layer stored in another way."""
    return dataclasses.replace(op, weights=(stored(op.weight_count, **weights),))


def model(ops: Sequence[Op], **changes: Any) -> Model:
    """A model of these operators; there is no file."""
    facts: dict[str, Any] = {
        "path": Path("net.mnn"),
        "size": 1000 + sum(op.weight_bytes for op in ops),
        "version": "3.6.1",
        "uuid": "uuid-1",
        "ops": tuple(ops),
        "tensor_names": ("in", *(name for op in ops for name in op.output_names)),
        "inputs": (),
        "output_names": (),
        "tensor_quants": {},
        "external_path": None,
        "external_needed": 0,
    }
    return Model(**{**facts, **changes})


def codes(result: Result) -> list[str]:
    """The rule codes of a result's findings, in order."""
    return [finding.code for finding in result.findings]


def certain(result: Result) -> list[str]:
    """The same without the warning that the samples are few."""
    return [code for code in codes(result) if code != "MNQ730"]
