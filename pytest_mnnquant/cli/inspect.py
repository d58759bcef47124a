"""The results of `pytest-mnnquant inspect` and `diff` as plain values, and their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pytest_mnnquant.cli.operator_changes import (
    has_equal_bytes,
    interface_changes,
    operator_changes,
    tensor_changes,
)
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.ledger import account
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import BadModel, Model, Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.report.width import shown

_FLOATS: Final = (Storage.FLOAT32, Storage.SPARSE_FLOAT)
_SAME_SCALE: Final = 1e-6


def inspection(model: Model) -> dict[str, Any]:
    """Layers, bytes by class and a verdict of one model."""
    ledger = account(model)
    layers = [_layer(op) for op in model.layers]
    weights = sum(layer["weights"] for layer in layers)
    low = sum(layer["weights"] for layer in layers if layer["quantized"])
    return {
        "path": str(model.path),
        "bytes": model.size,
        "made_by": model.version,
        "uuid": model.uuid,
        "inputs": [{"name": item.name, "shape": list(item.shape), "type": item.data_type} for item in model.inputs],
        "outputs": list(model.output_names),
        "layers": layers,
        "classes": dict(sorted(ledger.classes.items(), key=lambda item: -item[1])),
        "shared": [list(group) for group in ledger.shared],
        "duplicated": [list(group) for group in ledger.duplicated],
        "external_missing": model.external_missing,
        "quantized_share": low / weights if weights else 0.0,
    }


def _layer(op: Op) -> dict[str, Any]:
    weights = op.weights[0]
    return {
        "name": op.name,
        "op": op.kind,
        "subgraph": op.subgraph,
        "shape": list(op.shape),
        "group": op.group,
        "weights": op.weight_count,
        "stored": weights.label,
        "bits": weights.bits,
        "asymmetric": weights.asymmetric,
        "block": weights.block,
        "bytes": op.weight_bytes,
        "intact": weights.intact,
        "quantized": weights.storage not in _FLOATS and weights.intact,
    }


def inspection_text(content: Mapping[str, Any]) -> str:
    """An inspection in at most 80 columns plus names. Names are never cut, so that they can be copied."""
    made_by = f", made by MNN {content['made_by']}" if content["made_by"] else ""
    lines = [f"{content['path']}: {content['bytes']:,} bytes{made_by}"]
    head = f"{'stored':<14}{'weights':>12}{'bytes':>12}  {'op':<22}layer"
    lines.append(head)
    for layer in content["layers"]:
        shape = "x".join(str(size) for size in layer["shape"])
        broken = "" if layer["intact"] else "  BROKEN: buffer and header contradict each other"
        lines.append(
            f"{layer['stored']:<14}{layer['weights']:>12,}{layer['bytes']:>12,}  {_short(layer['op'], shape):<22}"
            f"{layer['name']}{broken}"
        )
    lines.append("bytes: " + ", ".join(f"{name} {size:,}" for name, size in content["classes"].items()))
    for title in ("shared", "duplicated"):
        lines += [f"{title}: " + ", ".join(group) for group in content[title]]
    lines.append(verdict(content))
    return "\n".join(map(shown, lines))


def _short(op: str, shape: str) -> str:
    names = {"Convolution": "Conv", "ConvolutionDepthwise": "DepthwiseConv", "Deconvolution": "Deconv"}
    return f"{names.get(op, op)} {shape}"


def verdict(content: Mapping[str, Any]) -> str:
    """One line: the quantized part of the model."""
    layers: Sequence[Mapping[str, Any]] = content["layers"]
    if content["external_missing"]:
        return f"verdict: BROKEN, {content['external_missing']:,} bytes of the .mnn.weight file are missing"
    if not all(layer["intact"] for layer in layers):
        return "verdict: BROKEN, the runtime can't load a layer"
    forms = sorted({layer["stored"] for layer in layers})
    low = sum(layer["quantized"] for layer in layers)
    share = f"{content['quantized_share']:.1%} of the weights"
    return f"verdict: {low} of {len(layers)} layers quantized, {share} ({', '.join(forms)})"


def difference(first: Model, second: Model) -> dict[str, Any]:
    """What changed from one model to another: layers, weights, operators, vectors, constants, scales, bytes by class.

    `same` means that both files compute the same; `other_bytes`: they differ in bytes that none of these rows explains.
    """
    match = match_layers(first, second)
    layers = [row for old, new in match.pairs if (row := _changed(first, second, old, new))]
    before, after = account(first).classes, account(second).classes
    classes = {
        name: [before.get(name, 0), after.get(name, 0)]
        for name in sorted(before.keys() | after.keys())
        if before.get(name, 0) != after.get(name, 0)
    }
    changes: dict[str, Any] = {
        "only_in_first": [op.name for op in match.missing],
        "only_in_second": [op.name for op in match.extra],
        "layers": layers,
        "operators": operator_changes(first, second),
        "tensors": tensor_changes(first, second),
        "interface": interface_changes(first, second),
        "classes": classes,
    }
    is_explained = any(changes.values())
    changes["other_bytes"] = not is_explained and not has_equal_bytes(first, second)
    versions = {"bytes": [first.size, second.size], "uuid": [first.uuid, second.uuid]}
    return {**versions, "made_by": [first.version, second.version], **changes, "same": not any(changes.values())}


def _changed(first: Model, second: Model, old: Op, new: Op) -> dict[str, Any] | None:
    old_weights, new_weights = old.weights[0], new.weights[0]
    row: dict[str, Any] = {"name": old.name}
    if old.name != new.name:
        row["renamed"] = new.name
    if old_weights.label != new_weights.label:
        row["stored"] = [old_weights.label, new_weights.label]
    scales = {
        "scale_in": (old_weights.scale_in, new_weights.scale_in),
        "scale_out": (old_weights.scale_out, new_weights.scale_out),
    }
    row |= {key: list(pair) for key, pair in scales.items() if abs(pair[0] - pair[1]) > _SAME_SCALE * abs(pair[0])}
    try:
        before, after = first.decoded(old).reshape(-1), second.decoded(new).reshape(-1)
        if not np.array_equal(before, after):
            row["weight_sqnr_db"] = sqnr_db(before, after) if before.shape == after.shape else None
    except BadModel as error:
        row["unreadable"] = str(error)
    return row if len(row) > 1 else None


def difference_text(changes: Mapping[str, Any]) -> str:
    """A difference as text."""
    if changes["same"]:
        names = {"uuid": "the uuid", "made_by": "the version of the converter"}
        other = " and ".join(words for key, words in names.items() if changes[key][0] != changes[key][1])
        return "no difference" + (f" except {other}" if other else "")
    before, after = changes["bytes"]
    lines = [f"bytes: {before:,} -> {after:,}" + (f" ({size_text(before / after)})" if after else "")]
    lines += [f"only in the first: {name}" for name in changes["only_in_first"]]
    lines += [f"only in the second: {name}" for name in changes["only_in_second"]]
    lines += [f"{name}: {_arrow(pair)}" for name, pair in changes["interface"].items()]
    reported = {*changes["only_in_first"], *changes["only_in_second"]}
    rows = [row for row in changes["operators"] if not (row["name"] in reported and "only_in" in row)]
    for row in [*changes["layers"], *rows, *changes["tensors"]]:
        parts = [f"{key} {_arrow(value)}" for key, value in row.items() if key != "name"]
        lines.append(f"{row['name']}: {', '.join(parts)}".replace("only_in", "only in"))
    lines += ["the files differ in bytes that are compared as a whole only"] * changes["other_bytes"]
    lines += [f"  {name}: {old:,} -> {new:,} bytes" for name, (old, new) in changes["classes"].items()]
    return "\n".join(map(shown, lines))


def _arrow(value: Any) -> str:
    if isinstance(value, list):
        return " -> ".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in value)
    return f"{value:.1f}" if isinstance(value, float) else str(value)
