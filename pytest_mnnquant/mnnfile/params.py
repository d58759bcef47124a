"""MNN's params file (`compress_params_index.bin`): the quantization of each layer, as input of the converter.

A protobuf message `MNN.Compression.Pipeline`, binary, or JSON when the file's name ends in `.json` (the converter
decides by the suffix). Field numbers: MNN 3.6.1, `tools/converter/source/compression/MNN_compression.proto`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile import wire
from pytest_mnnquant.mnnfile.params_form import Node, from_binary, from_json
from pytest_mnnquant.mnnfile.wire import BadParams

_QUANTIZE: Final = 0
_INT8: Final = (-128, 127)


class DoubledParams(BadParams):
    """The entries of two calibrations in one file."""


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
    """Symmetric weights: one scale per channel (or a single one)."""

    name: str
    scales: tuple[float, ...] = ()
    bits: int = 8
    clamp_min: int = -128
    clamp_max: int = 127


@dataclass(frozen=True, slots=True)
class LayerParams:
    """One layer. MNN finds it by the name of its output tensor.

    Without activations, the entry gives only the bits of the weights of operator `op_name` (0: float), in the main
    graph or in `subgraph`.
    """

    weight: WeightParams
    input: ActivationParams | None = None
    output: ActivationParams | None = None
    op_name: str = ""
    subgraph: str = ""

    @property
    def name(self) -> str:
        """The name that MNN's converter searches for."""
        return self.output.name if self.output else self.op_name or self.weight.name


@dataclass(frozen=True, slots=True)
class Params:
    """The content of a params file."""

    layers: tuple[LayerParams, ...]
    uuid: str = ""
    version: str = "0.0.0"

    @property
    def is_guide(self) -> bool:
        """Whether the converter itself wrote this file: it lists layers with bits for weights, and no tensors."""
        return bool(self.layers) and all(layer.output is None for layer in self.layers)

    @property
    def is_blank(self) -> bool:
        """Whether it is an unedited file of the converter: 0 bits for all layers, so that nothing is quantized."""
        return self.is_guide and not any(layer.weight.bits for layer in self.layers)

    def renamed(self, names: dict[str, str]) -> Params:
        """The same params with output tensors renamed."""

        def rename(layer: LayerParams) -> LayerParams:
            if layer.output is None or layer.output.name not in names:
                return layer
            return dataclasses.replace(layer, output=dataclasses.replace(layer.output, name=names[layer.output.name]))

        return dataclasses.replace(self, layers=tuple(rename(layer) for layer in self.layers))


def read_params(path: Path) -> Params:
    """Parse a params file as the converter does. Raises `BadParams` (error and position) or `OSError`."""
    if not path.is_file() and path.exists() and not path.is_dir():
        raise BadParams(f"{path} is not a regular file")
    data = path.read_bytes()
    if not data:
        raise BadParams(f"{path} is empty")
    try:
        if path.suffix == ".json":
            return _params(from_json(data))
        if data.lstrip(b" \t\r")[:1] != b"{":  # A binary file starts with a byte that is a line feed in text.
            return _params(from_binary(data))
        params = _params(from_json(data))
    except BadParams as error:
        raise type(error)(f"{path}: {error}") from None
    if not params.is_guide:  # The converter writes its template as JSON, with any suffix.
        raise BadParams(f"{path}: contains JSON text, but MNN reads JSON only from a file with the suffix .json")
    return params


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
    names = ((6, layer.op_name), (7, layer.subgraph))
    named = b"".join(wire.put_bytes(number, name.encode()) for number, name in names if name)
    return activation(1, layer.input) + wire.put_bytes(2, weight_bytes) + activation(3, layer.output) + named


def _params(root: Node) -> Params:
    if not root.values.get("version"):
        raise BadParams("the required field `version` is missing; this is not a params file, or it is truncated")
    layers = []
    for algorithm in root.values.get("algo", []):
        quantize = algorithm.values.get("quant_params")
        if algorithm.values.get("type", _QUANTIZE) in (_QUANTIZE, "QUANTIZE") and quantize is not None:
            layers += [_layer(node) for node in quantize.values.get("layer", [])]
    params = Params(tuple(layers), root.values.get("mnn_uuid", ""), root.values["version"])
    seen: set[str] = set()
    for layer in params.layers:
        if layer.output is not None and layer.name in seen:
            raise DoubledParams(f"output tensor {layer.name!r} is listed twice; MNN uses the first entry")
        seen.add(layer.name)
    return params


def _layer(node: Node) -> LayerParams:
    weight, input_, output = node.first("weight"), node.first("input"), node.first("output")
    if weight is None:
        raise BadParams(f"{node.where}: the layer has no weight entry")
    activations = [_activation(tensor) if tensor is not None else None for tensor in (input_, output)]
    if (input_ is None) != (output is None):
        raise BadParams(f"{node.where}: the layer has an input or an output, but not both")
    scales = tuple(_scale(value, weight) for value in weight.values.get("scales", ()))
    # A guide has no activations; in it, 0 bits stand for "not quantized".
    bits = _integer(weight, "bits", 8, (2, 8) if output is not None else (0, 8))
    return LayerParams(
        weight=WeightParams(
            name=_name(weight),
            scales=scales,
            bits=bits,
            clamp_min=_integer(weight, "clamp_min", -128, _INT8),
            clamp_max=_integer(weight, "clamp_max", 127, _INT8),
        ),
        input=activations[0],
        output=activations[1],
        op_name=node.values.get("op_name", ""),
        subgraph=node.values.get("subgraph_name", ""),
    )


def _activation(node: Node) -> ActivationParams:
    name, scales = _name(node), node.values.get("scales", ())
    if len(scales) != 1:
        raise BadParams(f"{node.where}: tensor {name!r} has {len(scales)} scales; MNN uses one per tensor")
    return ActivationParams(
        name=name,
        scale=_scale(scales[0], node),
        zero_point=_integer(node, "zero_point", 0, _INT8),
        bits=_integer(node, "bits", 8, (2, 8)),
        clamp_min=_integer(node, "clamp_min", -128, _INT8),
        clamp_max=_integer(node, "clamp_max", 127, _INT8),
    )


def _name(node: Node) -> str:
    name = node.values.get("name")
    if not isinstance(name, str):
        raise BadParams(f"{node.where}: a tensor has no name")
    return name


def _scale(value: float, node: Node) -> float:
    if not math.isfinite(value) or value <= 0:
        raise BadParams(f"{node.where}: {node.values.get('name')!r} has scale {value}; required: finite and above 0")
    return value


def _integer(node: Node, key: str, default: int, allowed: tuple[int, int]) -> int:
    value = int(node.values.get(key, default))
    if not allowed[0] <= value <= allowed[1]:
        bounds = f"allowed {allowed[0]} to {allowed[1]}"
        raise BadParams(f"{node.where}: {node.values.get('name')!r} has {key.replace('_', ' ')} {value}, {bounds}")
    return value


__all__ = [
    "ActivationParams",
    "BadParams",
    "DoubledParams",
    "LayerParams",
    "Params",
    "WeightParams",
    "read_params",
    "write_params",
]
