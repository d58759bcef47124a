"""One model as a flat list of fields, once from the reader and once from the converter's JSON dump."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.mnnfile.model import VECTORS, Model, Op
from pytest_mnnquant.mnnfile.storage import Storage, Weights

Fields = dict[str, Any]
Json = dict[str, Any]
# The dump rounds floats to 6 decimals.
ROUNDED: Final = 1.1e-6
_FORMATS: Final = ("NCHW", "NHWC", "NC4HW4")
_KINDS: Final = {1: "float32s", 19: "uint8s"}
_SLOTS: Final = {
    "MatMul": ("weight", "bias"),
    "Scale": ("scaleData", "biasData"),
    "LayerNorm": ("gamma", "beta"),
    "GroupNorm": ("gamma", "beta"),
    "PRelu": ("slope",),
    "BatchNorm": ("slopeData", "meanData", "varData", "biasData", "Adata", "Bdata"),
    "Convolution3D": ("weight",),
}
_BLOBS: Final = {
    "LSTM": ("weightI", "weightH", "bias", "weightIQ"),
    "RNNParam": tuple(
        side + part
        for side in ("fw", "bw")
        for part in ("GateWeight", "GateBias", "CandidateWeight", "CandidateBias", "RecurrentBias")
    ),
}


def load_dump(path: Path) -> Json:
    """Parse a dump; it writes bare `inf` and `nan`."""
    words = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN", "-nan": "NaN"}
    text = path.read_text(encoding="utf-8", errors="replace")
    text = re.sub(r'"(?:[^"\\]|\\.)*"|-?\b(?:inf|nan)\b', lambda found: words.get(found[0], found[0]), text)
    loaded: Json = json.loads(text, strict=False)
    return loaded


def differences(mine: Fields, theirs: Fields) -> list[str]:
    """Fields that only one has, or that are not the same."""
    missing = [f"{name}: only one side has it" for name in sorted(mine.keys() ^ theirs.keys())]
    shared = [name for name in mine if name in theirs]
    return missing + [f"{n}: {_short(mine[n])} != {_short(theirs[n])}" for n in shared if not _same(mine[n], theirs[n])]


def _short(value: Any) -> str:
    return repr(value)[:60]


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
        one, other = np.asarray(mine).reshape(-1), np.asarray(theirs).reshape(-1)
        if one.shape != other.shape:
            return False
        if one.dtype.kind == "f":
            return bool(np.allclose(one, other, rtol=2e-7, atol=ROUNDED, equal_nan=True))
        return bool((one == other).all())
    if isinstance(mine, float):
        equal = math.isclose(mine, theirs, rel_tol=2e-7, abs_tol=ROUNDED)
        return equal or mine == theirs or (math.isnan(mine) and math.isnan(theirs))
    return bool(mine == theirs)


# The reader's side ----------------------------------------------------------------------------------------------------


def read_fields(model: Model) -> Fields:
    """What the reader says, and the raw arrays that it decodes from."""
    found: Fields = {
        "version": model.version,
        "uuid": model.uuid,
        "tensors": model.tensor_names,
        "outputs": model.output_names,
        "operators": len(model.ops),
        "quantized tensors": sorted(model.tensor_quants),
        "inputs": [(item.name, item.shape, item.data_type, item.layout) for item in model.inputs],
    }
    for index, quant in model.tensor_quants.items():
        for key in ("scale", "zero", "low", "high", "data_type"):
            found[f"tensor {index}: {key}"] = getattr(quant, key)
    for number, op in enumerate(model.ops):
        for key, value in _read_op(op):
            found[f"op {number}: {key}"] = value
    return found


def _read_op(op: Op) -> Iterator[tuple[str, Any]]:
    yield from (("name", op.name), ("kind", op.kind), ("parameters", op.parameter_kind), ("subgraph", op.subgraph))
    yield from (("inputs", op.inputs), ("outputs", op.outputs))
    yield from (("input names", op.input_names), ("output names", op.output_names))
    yield from (("shape", op.shape), ("group", op.group), ("stored tensors", len(op.weights)))
    for number, weights in enumerate(op.weights):
        yield f"{number} storage", weights.storage.value
        for key in ("bits", "count", "size", "channels", "asymmetric", "block", "full_int8", "scale_in", "scale_out"):
            yield f"{number} {key}", getattr(weights, key)
        yield f"{number} external", weights.external
        for key, value in _raw(weights):
            yield f"{number} raw {key}", value


def _raw(weights: Weights) -> Iterator[tuple[str, Any]]:
    source = weights._source
    if isinstance(source, tuple):
        table, *slots = source
        kind = "<f4" if weights.storage is Storage.FLOAT32 else "u1"
        yield "vectors", np.concatenate([table.array(slot, kind) for slot in slots])
    elif weights.storage is Storage.FLOAT32:
        yield "vectors", source.array(1, "<f4")
    else:
        yield "codes", source.array(0, "i1")
        yield "scales", source.array(1, "<f4")
        yield "half scales", source.array(14, "<u2")
        yield "places", source.array(13, "<u4")


# The dump's side ------------------------------------------------------------------------------------------------------


def dump_fields(dump: Json) -> Fields:
    """The same fields from the dump, worked out on their own."""
    tensors = tuple(dump["tensorName"])
    graphs = [("", tensors, dump["oplists"])]
    graphs += [
        (graph["name"], tuple(graph.get("tensors", ())), graph.get("nodes", [])) for graph in dump.get("subgraphs", [])
    ]
    ops = [(title, names, op) for title, names, nodes in graphs for op in nodes]
    inputs = [op for title, _, op in ops if op["type"] == "Input" and not title]
    found: Fields = {
        "version": dump.get("extraInfo", {}).get("version", ""),
        "uuid": dump.get("mnn_uuid", ""),
        "tensors": tensors,
        "outputs": tuple(dump.get("outputName", ())),
        "operators": len(ops),
        "inputs": [
            (
                tensors[op["outputIndexes"][0]],
                tuple(op["main"].get("dims", ())),
                _data_type(op["main"].get("dtype", "DT_FLOAT")),
                op["main"].get("dformat", "NC4HW4"),
            )
            for op in inputs
        ],
    }
    quants = {
        item.get("index", 0): item["quantInfo"] for item in dump.get("extraTensorDescribe", []) if "quantInfo" in item
    }
    found["quantized tensors"] = sorted(quants)
    for index, quant in quants.items():
        for key, name, default in (
            ("scale", "scale", 0),
            ("zero", "zero", 0),
            ("low", "min", -128),
            ("high", "max", 127),
        ):
            found[f"tensor {index}: {key}"] = float(quant.get(name, default))
        found[f"tensor {index}: data_type"] = _data_type(quant.get("type", "DT_INVALID"))
    for number, (title, names, op) in enumerate(ops):
        for key, value in _dumped_op(op, names, title):
            found[f"op {number}: {key}"] = value
    return found


def _data_type(name: str) -> str:
    return name.removeprefix("DT_").lower()


def _dumped_op(op: Json, names: tuple[str, ...], title: str) -> Iterator[tuple[str, Any]]:
    kind, main = op.get("main_type", "NONE"), op.get("main", {})
    inputs, outputs = tuple(op.get("inputIndexes", ())), tuple(op.get("outputIndexes", ()))
    yield from (("name", op.get("name", "")), ("kind", op["type"]), ("subgraph", title))
    yield "parameters", "#0" if kind == "NONE" else kind
    yield from (("inputs", inputs), ("outputs", outputs))
    yield "input names", tuple(names[index] if index >= 0 else f"#{index}" for index in inputs)
    yield "output names", tuple(names[index] for index in outputs)
    common = main.get("common", {}) if kind == "Convolution2D" else {}
    shape = tuple(common.get(key, 1) for key in ("outputCount", "inputCount", "kernelY", "kernelX")) if common else ()
    yield "shape", tuple(main.get("dims", ())) if kind == "Blob" else shape
    yield "group", common.get("group", 1)
    stored = [weights for weights in _dumped_weights(kind, main) if weights is not None]
    yield "stored tensors", len(stored)
    defaults: Json = {
        **{"channels": 0, "asymmetric": False, "block": None, "full_int8": False, "scale_in": 0.0, "scale_out": 0.0},
        "external": (),
    }
    for number, weights in enumerate(stored):
        for key, value in {**defaults, **weights}.items():
            yield f"{number} {key}", value


def _dumped_weights(kind: str, main: Json) -> Iterator[Json | None]:
    if kind == "Convolution2D":
        yield _convolution(main)
    elif kind == "Blob":
        yield _blob(main)
    elif kind in VECTORS:
        values = [np.array(main.get(name, ()), np.float32) for name in _SLOTS[kind]]
        external = tuple(main.get("external", ())) if VECTORS[kind][1] is not None else ()
        yield _floats(np.concatenate(values), external, sum(external[1:]) // 4)
    for name in _BLOBS.get(kind, ()):
        if name in main:
            yield _blob(main[name])


def _floats(values: Any, external: tuple[int, ...], count: int) -> Json | None:
    count = len(values) or count
    found = {"storage": "float32", "bits": 32, "count": count, "size": 4 * count, "external": external}
    return {**found, "raw vectors": values} if count else None


def _blob(main: Json) -> Json | None:
    kind, external = _data_type(main.get("dataType", "DT_FLOAT")), tuple(main.get("external", ()))
    if kind == "float":
        return _floats(np.array(main.get("float32s", ()), np.float32), external, sum(external[1:2]) // 4)
    data = np.array(main.get("uint8s", ()), np.uint8)
    if kind != "half" or not (data.size or external):
        return None
    size = data.size or external[1]
    return {
        **{"storage": "float16", "bits": 16, "count": size // 2, "size": size, "external": external},
        "raw vectors": data,
    }


def _convolution(main: Json) -> Json | None:
    common, external, quan = main["common"], tuple(main.get("external", ())), main.get("quanParameter")
    weights = np.array(main.get("weight", ()), np.float32)
    channels = common.get("outputCount", 0)
    if quan is None:
        found = _floats(weights, external, sum(external[1:2]) // 4)
        return None if found is None else {**found, "channels": channels}
    return _quantized(common, external, quan, "symmetricQuan" in main)


def _quantized(common: Json, external: tuple[int, ...], quan: Mapping[str, Any], symmetric: bool) -> Json:
    kind, channels = quan.get("type", 0), common["outputCount"]
    codes, scales = np.array(quan.get("buffer", ()), np.int8), np.array(quan.get("alpha", ()), np.float32)
    half, places = np.array(quan.get("alphaFp16", ()), np.uint16), np.array(quan.get("index", ()), np.uint32)
    inside = common["inputCount"] // common["group"] or 1
    count = channels * inside * common["kernelX"] * common["kernelY"]
    outside = dict(enumerate(external))
    width = 2 if quan.get("scaleStorage", "FP32") == "FP16" else 4
    found: Json = {
        "channels": channels,
        "external": external,
        "size": codes.size + 4 * scales.size + 2 * half.size + 4 * places.size,
        "count": count,
        "raw codes": codes,
        "raw scales": scales,
        "raw half scales": half,
        "raw places": places,
    }
    if not codes.size and not places.size:
        found["size"] = outside.get(1, 0) + outside.get(2, 0) + outside.get(4, 0)
    if kind == 0:
        return {**found, "storage": "sparse float", "bits": 32}
    if kind == 3:
        return {**found, "storage": "float16", "bits": 16}
    groups = (scales.size or half.size or outside.get(2, 0) // width) // (2 if quan.get("readType", 0) else 1)
    blocks = groups // channels
    return {
        **found,
        "storage": "sparse integer" if kind == 2 else "integer",
        "bits": quan.get("aMaxOrBits", 0) or _bits(codes.view(np.uint8), kind, outside.get(1, 0), count),
        "asymmetric": quan.get("readType", 0) != 0,
        "block": count // channels // blocks if blocks > 1 else None,
        "full_int8": symmetric and quan.get("scaleIn", 0) != 0,
        "scale_in": float(quan.get("scaleIn", 0)),
        "scale_out": float(quan.get("scaleOut", 0)),
    }


def _bits(codes: Any, kind: int, external: int, count: int) -> int:
    """Bits by the size of the code book, for converters that did not write them (3.0)."""
    if not codes.size:
        return next(bits for bits in range(1, 9) if 6 + 2**bits + math.ceil(bits * count / 8) == external)
    at = 1 + 2 * int(codes[0])
    if kind == 2:
        entries, step_bits = int.from_bytes(codes[at : at + 4].tobytes(), "little"), int(codes[at + 4])
        at += 5 + math.ceil(entries * step_bits / 8)
    return math.ceil(math.log2(int(codes[at]) or 256))
