"""MNN's params file (`compress_params_index.bin`): what the converter is told about each layer's quantization.

A protobuf message `MNN.Compression.Pipeline`, binary, or JSON when the file's name ends in `.json` (the converter
decides by the name). Field numbers: mnncompress 0.3.2, `common/MNN_compression.proto`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.mnnfile import wire
from pytest_mnnquant.mnnfile.wire import BadParams

_QUANTIZE: Final = 0


@dataclass(frozen=True, slots=True)
class ActivationParams:
    """A quantized tensor: real value = scale * (code - zero_point), codes in [clamp_min, clamp_max]."""

    name: str
    scale: float
    zero_point: int = 0
    bits: int = 8
    clamp_min: int = -128
    clamp_max: int = 127


@dataclass(frozen=True, slots=True)
class WeightParams:
    """Symmetric weights: one scale a channel (or a single one)."""

    name: str
    scales: tuple[float, ...] = ()
    bits: int = 8
    clamp_min: int = -128
    clamp_max: int = 127


@dataclass(frozen=True, slots=True)
class LayerParams:
    """One layer. MNN finds it by the name of its output tensor; a guide for weight-only bits has no activations."""

    weight: WeightParams
    input: ActivationParams | None = None
    output: ActivationParams | None = None
    op_name: str = ""

    @property
    def name(self) -> str:
        """What MNN's converter looks for."""
        return self.output.name if self.output else self.op_name or self.weight.name


@dataclass(frozen=True, slots=True)
class Params:
    """The content of a params file."""

    layers: tuple[LayerParams, ...]
    uuid: str = ""
    version: str = "0.0.0"

    @property
    def is_guide(self) -> bool:
        """Whether the converter itself made this file: it lists the layers with 0 bits, so nothing is quantized."""
        return bool(self.layers) and all(layer.output is None for layer in self.layers)

    def renamed(self, names: dict[str, str]) -> Params:
        """The same params with output tensors renamed."""

        def rename(layer: LayerParams) -> LayerParams:
            if layer.output is None or layer.output.name not in names:
                return layer
            return dataclasses.replace(layer, output=dataclasses.replace(layer.output, name=names[layer.output.name]))

        return dataclasses.replace(self, layers=tuple(rename(layer) for layer in self.layers))


def read_params(path: Path) -> Params:
    """Parse a params file as the converter would. Raises `BadParams` (what is wrong, where) or `OSError`."""
    data = path.read_bytes()
    if not data:
        raise BadParams(f"{path} is empty")
    try:
        if path.suffix == ".json":
            return _from_json(data)
        if data.lstrip(b" \t\r")[:1] == b"{":  # A binary file starts with a byte that is a line feed in text.
            return _from_json_in_bin(data)
        return _from_binary(data)
    except BadParams as error:
        raise BadParams(f"{path}: {error}") from None


def write_params(params: Params, path: Path) -> None:
    """Write the binary form."""
    layers = b"".join(wire.put_bytes(4, _layer_bytes(layer)) for layer in params.layers)
    algorithm = wire.put_int(1, _QUANTIZE) + wire.put_bytes(2, layers)
    uuid = wire.put_bytes(3, params.uuid.encode()) if params.uuid else b""
    path.write_bytes(wire.put_bytes(1, params.version.encode()) + wire.put_bytes(2, algorithm) + uuid)


def _layer_bytes(layer: LayerParams) -> bytes:
    def activation(number: int, tensor: ActivationParams | None) -> bytes:
        if tensor is None:
            return b""
        return wire.put_bytes(
            number,
            wire.put_bytes(1, tensor.name.encode())
            + wire.put_int(2, tensor.bits)
            + wire.put_float(3, tensor.scale)
            + wire.put_int(4, tensor.zero_point)
            + wire.put_int(5, tensor.clamp_min)
            + wire.put_int(6, tensor.clamp_max),
        )

    weight = layer.weight
    weight_bytes = (
        wire.put_bytes(1, weight.name.encode())
        + wire.put_int(2, weight.bits)
        + b"".join(wire.put_float(3, scale) for scale in weight.scales)
        + wire.put_int(4, weight.clamp_min)
        + wire.put_int(5, weight.clamp_max)
    )
    op_name = wire.put_bytes(5, layer.op_name.encode()) if layer.op_name else b""
    return activation(1, layer.input) + wire.put_bytes(2, weight_bytes) + activation(3, layer.output) + op_name


# Binary -------------------------------------------------------------------------------------------------------------


def _from_binary(data: bytes) -> Params:
    version, uuid = "", ""
    layers: list[LayerParams] = []
    for field in wire.fields(data):
        if field.number == 1:
            version = _text(field)
        elif field.number == 2:
            layers.extend(_algorithm(field))
        elif field.number == 3:
            uuid = _text(field)
        elif field.number > 15:
            raise BadParams(f"byte {field.position}: unknown field {field.number}; this is not a params file")
    if not version:
        raise BadParams("the required field `version` is missing; this is not a params file, or it is truncated")
    return _checked(Params(tuple(layers), uuid, version))


def _algorithm(field: wire.Field) -> Iterator[LayerParams]:
    kind = _QUANTIZE
    inner = list(wire.fields(_bytes(field), field.position))
    for part in inner:
        if part.number == 1:
            kind = int(part.value) if isinstance(part.value, int) else kind
    for part in inner:
        if part.number == 2 and kind == _QUANTIZE:
            for entry in wire.fields(_bytes(part), part.position):
                if entry.number == 4:
                    yield _layer(entry)


def _layer(field: wire.Field) -> LayerParams:
    tensors: dict[int, dict[str, Any]] = {}
    op_name = ""
    for part in wire.fields(_bytes(field), field.position):
        if part.number in (1, 2, 3):
            tensors.setdefault(part.number, _tensor(part, is_weight=part.number == 2))
        elif part.number == 5 and isinstance(part.value, bytes):
            op_name = _text(part)
    return _make_layer(tensors.get(1), tensors.get(2), tensors.get(3), op_name, f"byte {field.position}")


def _tensor(field: wire.Field, is_weight: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"scales": []}
    names = (
        {2: "bits", 4: "clamp_min", 5: "clamp_max"}
        if is_weight
        else {2: "bits", 4: "zero_point", 5: "clamp_min", 6: "clamp_max"}
    )
    for part in wire.fields(_bytes(field), field.position):
        if part.number == 1:
            found["name"] = _text(part)
        elif part.number == 3 and isinstance(part.value, bytes) and len(part.value) % 4 == 0:
            found["scales"].extend(struct.unpack(f"<{len(part.value) // 4}f", part.value))
        elif part.number in names and isinstance(part.value, int):
            found[names[part.number]] = wire.signed(part.value)
    return found


def _bytes(field: wire.Field) -> bytes:
    if not isinstance(field.value, bytes):
        raise BadParams(f"byte {field.position}: field {field.number} is a number where a message is expected")
    return field.value


def _text(field: wire.Field) -> str:
    try:
        return _bytes(field).decode("utf-8")
    except UnicodeDecodeError:
        raise BadParams(f"byte {field.position}: field {field.number} is not UTF-8 text") from None


# JSON ---------------------------------------------------------------------------------------------------------------


def _from_json_in_bin(data: bytes) -> Params:
    params = _from_json(data)
    if params.is_guide:
        return params  # The converter writes its guide as JSON whatever the file is called.
    raise BadParams("it holds JSON text, but MNN reads JSON only from a file whose name ends in .json")


def _from_json(data: bytes) -> Params:
    try:
        root = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadParams(f"not JSON: {error}") from None
    if not isinstance(root, dict):
        raise BadParams("the top level is not an object")
    layers = []
    for a, algorithm in enumerate(_list(root, "algo", "")):
        if algorithm.get("type", "QUANTIZE") not in ("QUANTIZE", _QUANTIZE):
            continue
        where = f"algo[{a}].quantParams"
        quant = algorithm.get("quantParams", algorithm.get("quant_params", {}))
        for number, layer in enumerate(_list(quant if isinstance(quant, dict) else {}, "layer", where)):
            layers.append(_json_layer(layer, f"{where}.layer[{number}]"))
    uuid = root.get("mnnUuid", root.get("mnn_uuid", ""))
    return _checked(Params(tuple(layers), str(uuid), str(root.get("version", "0.0.0"))))


def _json_layer(layer: dict[str, Any], where: str) -> LayerParams:
    def first(key: str) -> dict[str, Any] | None:
        tensors = _list(layer, key, where)
        return {_snake(name): value for name, value in tensors[0].items()} if tensors else None

    name = layer.get("opName", layer.get("op_name", ""))
    return _make_layer(first("input"), first("weight"), first("output"), str(name), where)


def _list(holder: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    value = holder.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadParams(f"{where + '.' if where else ''}{key} is not a list of objects")
    return value


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)


# Both ---------------------------------------------------------------------------------------------------------------


def _make_layer(
    input_: dict[str, Any] | None,
    weight: dict[str, Any] | None,
    output: dict[str, Any] | None,
    op_name: str,
    where: str,
) -> LayerParams:
    if weight is None:
        raise BadParams(f"{where}: the layer has no weight entry")
    try:
        return LayerParams(
            weight=WeightParams(
                name=_name(weight, where),
                scales=_scales(weight, where),
                **_integers(weight, ("bits", "clamp_min", "clamp_max")),
            ),
            input=_activation(input_, where) if input_ else None,
            output=_activation(output, where) if output else None,
            op_name=op_name,
        )
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, BadParams):
            raise
        raise BadParams(f"{where}: {error}") from None


def _activation(tensor: dict[str, Any], where: str) -> ActivationParams:
    scales = _scales(tensor, where)
    if len(scales) != 1:
        raise BadParams(f"{where}: tensor {tensor.get('name')!r} has {len(scales)} scales; MNN uses one a tensor")
    integers = _integers(tensor, ("bits", "zero_point", "clamp_min", "clamp_max"))
    return ActivationParams(name=_name(tensor, where), scale=scales[0], **integers)


def _scales(tensor: dict[str, Any], where: str) -> tuple[float, ...]:
    scales = tensor.get("scales", [])
    if not isinstance(scales, list):
        raise BadParams(f"{where}: the scales of {tensor.get('name')!r} are not a list")
    return tuple(float(scale) for scale in scales)


def _integers(tensor: dict[str, Any], keys: Iterable[str]) -> dict[str, int]:
    return {key: int(tensor[key]) for key in keys if key in tensor}


def _name(tensor: dict[str, Any], where: str) -> str:
    name = tensor.get("name")
    if not isinstance(name, str):
        raise BadParams(f"{where}: a tensor has no name")
    return name


def _is_scale(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _checked(params: Params) -> Params:
    seen: set[str] = set()
    for layer in params.layers:
        for tensor in (layer.input, layer.output):
            if tensor is None:
                continue
            if not _is_scale(tensor.scale):
                raise BadParams(f"tensor {tensor.name!r} has scale {tensor.scale}; it must be finite and above 0")
            if not -128 <= tensor.zero_point <= 127:
                raise BadParams(f"tensor {tensor.name!r} has zero point {tensor.zero_point}, outside -128..127")
        if not all(_is_scale(scale) for scale in layer.weight.scales):
            raise BadParams(f"the weights of {layer.name!r} have a scale that is not finite and above 0")
        if layer.output is not None and layer.name in seen:
            raise BadParams(f"output tensor {layer.name!r} is listed twice; MNN takes the first")
        seen.add(layer.name)
    return params


__all__ = ["ActivationParams", "BadParams", "LayerParams", "Params", "WeightParams", "read_params", "write_params"]
