"""What differs between the graphs of two models: operators, their attributes, vectors, constants, and tensor scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.flatbuffer import BadModel, Table
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.settings import settings

Change = list[Any]
# The vectors of a Blob in MNN's schema, with their types.
_BLOB: Final = {3: "u1", 4: "i1", 5: "<i4", 6: "<i8", 7: "<f4"}
# The slots of the version and of the uuid; neither decides what a model computes.
_EXTRA: Final = 2
_VERSION: Final = 2
_UUID: Final = 11


def operator_changes(first: Model, second: Model) -> list[dict[str, Any]]:
    """The operators that both models have and that differ, and those that only one of them has."""
    before, after = _by_name(first), _by_name(second)
    vectors, other_vectors = _vectors(first), _vectors(second)
    rows = []
    for key, op in before.items():
        row: dict[str, Any] = {"name": op.name}
        if key not in after:
            row["only_in"] = "the first"
        else:
            row |= _changes(op, after[key])
            if not _is_equal(vectors.get(op.name), other_vectors.get(op.name)):
                row["vectors"] = _vector_change(vectors.get(op.name), other_vectors.get(op.name))
        rows += [row] if len(row) > 1 else []
    return [*rows, *({"name": op.name, "only_in": "the second"} for key, op in after.items() if key not in before)]


def _by_name(model: Model) -> dict[tuple[str, str, int], Op]:
    """The operators by graph and name, with a number for those of the same name."""
    found: dict[tuple[str, str, int], Op] = {}
    counts: dict[tuple[str, str], int] = {}
    for op in model.ops:
        key = (op.subgraph, op.name)
        counts[key] = counts.get(key, 0) + 1
        found[(*key, counts[key])] = op
    return found


def _changes(old: Op, new: Op) -> dict[str, Change]:
    pairs: dict[str, tuple[object, object]] = {
        "op": (old.kind, new.kind),
        "inputs": (", ".join(old.input_names), ", ".join(new.input_names)),
        "outputs": (", ".join(old.output_names), ", ".join(new.output_names)),
        "shape": (old.shape, new.shape),
        "group": (old.group, new.group),
    }
    attributes, others = settings(old), settings(new)
    for name in attributes.keys() | others.keys():
        pairs[name] = (attributes.get(name), others.get(name))
    changes = {name: [_text(before), _text(after)] for name, (before, after) in pairs.items() if before != after}
    if not old.is_layer and "values" not in changes and old.parameter_kind == new.parameter_kind == "Blob":
        changes |= _constant_change(old.parameters, new.parameters)
    return dict(sorted(changes.items()))


def _text(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, tuple) else value


def _constant_change(old: Table | None, new: Table | None) -> dict[str, Change]:
    """The number of values of a constant that differ, and the largest difference."""
    if old is None or new is None:
        return {}
    for slot, kind in _BLOB.items():
        before, after = old.array(slot, kind), new.array(slot, kind)
        if not _is_equal(before, after):
            return {"values": _vector_change(before, after)}
    return {}


def _vectors(model: Model) -> Mapping[str, npt.NDArray[Any]]:
    try:
        return model.vectors()
    except BadModel:  # External weights are missing: the bytes of the files differ.
        return {}


def _is_equal(before: npt.NDArray[Any] | None, after: npt.NDArray[Any] | None) -> bool:
    if before is None or after is None:
        return before is after
    return before.tobytes() == after.tobytes()


def _vector_change(before: npt.NDArray[Any] | None, after: npt.NDArray[Any] | None) -> Change:
    """A text that says how many values differ, and by how much."""
    if before is None or after is None or before.shape != after.shape:
        return [f"{0 if values is None else values.size} values" for values in (before, after)]
    differing = before.view(f"u{before.itemsize}") != after.view(f"u{after.itemsize}")
    with np.errstate(all="ignore"):
        largest = float(np.abs(before.astype(np.float64) - after.astype(np.float64))[differing].max())
    return [f"{int(differing.sum())} of {before.size} values differ, by up to {largest:.3g}"]


def tensor_changes(first: Model, second: Model) -> list[dict[str, Any]]:
    """The tensors whose quantization differs, by name."""
    before, after = _quants(first), _quants(second)
    rows = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, {}), after.get(name, {})
        changes = {
            key: [old.get(key), new.get(key)]
            for key in ("scale", "zero", "low", "high", "data_type")
            if old.get(key) != new.get(key)
        }
        rows += [{"name": name, **changes}] if changes else []
    return rows


def _quants(model: Model) -> dict[str, dict[str, object]]:
    fields = ("scale", "zero", "low", "high", "data_type")
    names = model.tensor_names
    return {
        names[number] if 0 <= number < len(names) else f"#{number}": {field: getattr(quant, field) for field in fields}
        for number, quant in model.tensor_quants.items()
    }


def interface_changes(first: Model, second: Model) -> dict[str, Change]:
    """Differences of the inputs and outputs."""
    pairs = {
        "inputs": [_inputs(model) for model in (first, second)],
        "outputs": [", ".join(model.output_names) for model in (first, second)],
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _inputs(model: Model) -> str:
    return "; ".join(f"{spec.name} {spec.data_type} {list(spec.shape)} {spec.layout}" for spec in model.inputs)


def has_equal_bytes(first: Model, second: Model) -> bool:
    """Whether both files have the same bytes, except the uuid and the version of the converter."""
    return list(_content(first)) == list(_content(second))


def _content(model: Model) -> Iterator[bytes]:
    """The bytes of a model without its uuid and version, then those of its external weights."""
    content = model.bytes_at(0, model.main_size)
    if content is not None:
        root = Table.root(content)
        extra = root.table(_EXTRA)
        spans = [root.span(_UUID, 1), *([extra.span(_VERSION, 1)] if extra else [])]
        data = bytearray(content)
        for start, length in spans:
            data[start : start + length] = bytes(length)
        yield bytes(data)
    external = model.bytes_at(0, model.size - model.main_size, external=True)
    yield bytes(external) if external is not None else b""
