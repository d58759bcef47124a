"""Small float networks as real `.tflite` files, each with the same network in PyTorch to check it by.

TFLite keeps images and weights channels last; the files are written with the flatbuffers bindings of package `tflite`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import tflite  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parent.parent / "fixtures"))
import digits_cnn
import digits_data

Floats = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]
INPUT: Final = "x"
_NONE, _RELU, _RELU6 = (getattr(tflite.ActivationFunctionType, name) for name in ("NONE", "RELU", "RELU6"))
_OPERATOR: Final = tflite.BuiltinOperator
_TYPES: Final = {name: getattr(tflite.TensorType, name.upper()) for name in ("float32", "float16", "int32", "int8")}
_VERSIONS: Final = {_OPERATOR.DEQUANTIZE: 3}


# The file -----------------------------------------------------------------------------------------------------------


@dataclass
class Graph:
    """Collects tensors and operators; the first dimension of every shape is the batch, of 1.

    Tensors are referred to by their numbers. `stored` is the type of the weights: float32, float16 with a DEQUANTIZE,
    or int8 with a scale, of which TFLite computes in 8 bits. `any_batch`: the input declares batches of any size. Each
    of the `signatures` has a subgraph; all are the same.
    """

    stored: str = "float32"
    any_batch: bool = False
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    values: list[npt.NDArray[Any] | None] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    nodes: list[tuple[int, list[int], int, str, dict[str, Any]]] = field(default_factory=list)
    scales: dict[int, float] = field(default_factory=dict)
    custom: str = ""
    signatures: tuple[str, ...] = ()

    def tensor(self, name: str, shape: tuple[int, ...], value: npt.NDArray[Any] | None = None) -> int:
        """A tensor; with a value it is a constant."""
        self.names.append(name)
        self.shapes.append(shape)
        self.values.append(value)
        return len(self.names) - 1

    def constant(self, name: str, value: Tensor | npt.NDArray[Any]) -> int:
        array = np.ascontiguousarray(value.detach().numpy() if isinstance(value, Tensor) else value)
        if array.dtype != np.float32 or self.stored == "float32" or (self.stored == "int8" and array.ndim < 2):
            return self.tensor(name, array.shape, array)
        if self.stored == "float16":
            half = self.tensor(f"{name}/half", array.shape, array.astype(np.float16))
            return self.node(_OPERATOR.DEQUANTIZE, [half], array.shape, name, "DequantizeOptions")
        scale = float(np.abs(array).max()) / 127
        codes = self.tensor(name, array.shape, np.round(array / scale).astype(np.int8))
        self.scales[codes] = scale
        return codes

    def node(self, code: int, inputs: list[int], shape: tuple[int, ...], name: str, options: str, **values: Any) -> int:
        """An operator; returns its output."""
        output = self.tensor(name, shape)
        self.nodes.append((code, inputs, output, options, values))
        return output

    def conv(self, x: int, layer: nn.Conv2d, name: str, act: int = _NONE) -> int:
        """A convolution padded to keep the size; depthwise where it has a group a channel."""
        _, height, width, channels = self.shapes[x]
        depthwise = layer.groups == channels > 1
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        assert layer.stride == (1, 1)
        assert layer.groups == 1 or (depthwise and layer.out_channels == channels)
        inputs = [x, self.constant(f"{name}/filter", layer.weight.detach().permute(order))]
        if layer.bias is not None:
            inputs.append(self.constant(f"{name}/bias", layer.bias))
        common = {
            **{"Padding": tflite.Padding.SAME, "StrideW": 1, "StrideH": 1, "FusedActivationFunction": act},
            **{"DilationWFactor": 1, "DilationHFactor": 1},
        }
        shape = (1, height, width, layer.out_channels)
        if depthwise:
            code = _OPERATOR.DEPTHWISE_CONV_2D
            return self.node(code, inputs, shape, name, "DepthwiseConv2DOptions", **common, DepthMultiplier=1)
        return self.node(_OPERATOR.CONV_2D, inputs, shape, name, "Conv2DOptions", **common)

    def linear(self, x: int, layer: nn.Linear, name: str, act: int = _NONE, weight: Tensor | None = None) -> int:
        weights = layer.weight if weight is None else weight
        inputs = [x, self.constant(f"{name}/weights", weights), self.constant(f"{name}/bias", layer.bias)]
        shape = (1, layer.out_features)
        code = _OPERATOR.FULLY_CONNECTED
        return self.node(code, inputs, shape, name, "FullyConnectedOptions", FusedActivationFunction=act)

    def pool(self, x: int, size: int, name: str, average: bool = False) -> int:
        _, height, width, channels = self.shapes[x]
        sizes = {"StrideW": size, "StrideH": size, "FilterWidth": size, "FilterHeight": size}
        code = _OPERATOR.AVERAGE_POOL_2D if average else _OPERATOR.MAX_POOL_2D
        shape = (1, height // size, width // size, channels)
        return self.node(code, [x], shape, name, "Pool2DOptions", Padding=tflite.Padding.VALID, **sizes)

    def flat(self, x: int, name: str) -> int:
        size = int(np.prod(self.shapes[x]))
        shape = self.constant(f"{name}/shape", np.array([-1, size], np.int32))
        return self.node(_OPERATOR.RESHAPE, [x, shape], (1, size), name, "ReshapeOptions", NewShape=[-1, size])

    def add(self, first: int, second: int, name: str, act: int = _NONE) -> int:
        shape = self.shapes[first]
        return self.node(_OPERATOR.ADD, [first, second], shape, name, "AddOptions", FusedActivationFunction=act)

    def rows(self, x: int, name: str) -> int:
        """One row per pixel, as detectors return them: [1, pixels, channels]."""
        _, height, width, channels = self.shapes[x]
        size = (1, height * width, channels)
        shape = self.constant(f"{name}/shape", np.array(size, np.int32))
        return self.node(_OPERATOR.RESHAPE, [x, shape], size, name, "ReshapeOptions", NewShape=list(size))

    def unknown(self, x: int, name: str) -> int:
        """An operator that is not TFLite's."""
        self.custom = name
        return self.node(_OPERATOR.CUSTOM, [x], self.shapes[x], name, "")

    def softmax(self, x: int, name: str) -> int:
        return self.node(_OPERATOR.SOFTMAX, [x], self.shapes[x], name, "SoftmaxOptions", Beta=1.0)

    def write(self, path: Path, outputs: Sequence[int]) -> Path:
        """The file, with the first tensor as the only input."""
        path.write_bytes(_encoded(self, list(outputs)))
        return path


def _encoded(graph: Graph, outputs: list[int]) -> bytes:
    out = flatbuffers.Builder(1 << 16)

    def table(kind: str, **values: Any) -> int:
        # Vectors and strings come before the table that refers to them.
        ready = {key: _part(out, value) for key, value in values.items()}
        getattr(tflite, f"{kind}Start")(out)
        for key, value in ready.items():
            getattr(tflite, f"{kind}Add{key}")(out, value)
        end: int = getattr(tflite, f"{kind}End")(out)
        return end

    buffers = [table("Buffer")]
    tensors = []
    for number, (name, shape, value) in enumerate(zip(graph.names, graph.shapes, graph.values, strict=True)):
        kind = _TYPES[value.dtype.name] if value is not None else tflite.TensorType.FLOAT32
        if value is not None:
            buffers.append(table("Buffer", Data=value.reshape(-1).view(np.uint8)))
        held = len(buffers) - 1 if value is not None else 0
        given: dict[str, Any] = {"Shape": np.array(shape, np.int32), "Type": kind, "Buffer": held, "Name": name}
        if number == 0 and graph.any_batch:
            given["ShapeSignature"] = np.array((-1, *shape[1:]), np.int32)
        if number in graph.scales:
            scale = {"Scale": np.array([graph.scales[number]], np.float32), "ZeroPoint": np.zeros(1, np.int64)}
            given["Quantization"] = _Made(table("QuantizationParameters", **scale))
        tensors.append(table("Tensor", **given))
    codes = sorted({node[0] for node in graph.nodes})
    nodes = []
    for code, inputs, output, kind, values in graph.nodes:
        given = {
            "OpcodeIndex": codes.index(code),
            "Inputs": np.array(inputs, np.int32),
            "Outputs": np.array([output], np.int32),
        }
        if kind:
            given |= {"BuiltinOptionsType": getattr(tflite.BuiltinOptions, kind)}
            given |= {"BuiltinOptions": _Made(table(kind, **values))}
        nodes.append(table("Operator", **given))
    listed = [_code(table, code, graph.custom) for code in codes]
    whole = table(
        "SubGraph",
        Tensors=_Tables(tensors),
        Inputs=np.array([0], np.int32),
        Outputs=np.array(outputs, np.int32),
        Operators=_Tables(nodes),
        Name="main",
    )
    signatures = [
        table("SignatureDef", SignatureKey=key, SubgraphIndex=number) for number, key in enumerate(graph.signatures)
    ]
    parts = {"OperatorCodes": listed, "Subgraphs": [whole] * max(1, len(signatures)), "Buffers": buffers}
    if signatures:
        parts["SignatureDefs"] = signatures
    vectors = {key: _Tables(tables) for key, tables in parts.items()}
    out.Finish(table("Model", Version=3, Description="written for a test", **vectors), b"TFL3")
    return bytes(out.Output())


def _code(table: Callable[..., int], code: int, custom: str) -> int:
    own = {"CustomCode": custom} if code == _OPERATOR.CUSTOM else {}
    # int8 weights of float layers need newer versions of the operators.
    return table("OperatorCode", DeprecatedBuiltinCode=code, BuiltinCode=code, Version=_VERSIONS.get(code, 1), **own)


class _Made(int):
    """The place of a table that is written already."""


class _Tables(list[int]):
    """Places of tables, to be written as a vector."""


def _part(out: Any, value: Any) -> Any:
    if isinstance(value, str):
        return out.CreateString(value)
    if isinstance(value, _Tables):
        out.StartVector(4, len(value), 4)
        for place in reversed(value):
            out.PrependUOffsetTRelative(place)
        return out.EndVector()
    if isinstance(value, np.ndarray | list):
        return out.CreateNumpyVector(np.array(value, getattr(value, "dtype", np.int32)))
    return value


# The networks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TfliteNet:
    """A network in PyTorch, how it is written to a file, and the size of its images."""

    network: Callable[[], nn.Module]
    draw: Callable[[Any, Graph, int], int]
    size: int = 16

    def write(self, path: Path, stored: str = "float32") -> Path:
        """The network as a `.tflite` file, with weights of the type `stored`; see `Graph`."""
        graph = Graph(stored)
        network = self.network()
        x = graph.tensor(INPUT, (1, self.size, self.size, 1))
        return graph.write(path, [self.draw(network, graph, x)])

    def calibration(self, count: int = 320) -> Arrays:
        """Images that the head was fitted on, channels last."""
        return {INPUT: _last(digits_data.calibration(self.size, count)["x"])}

    def evaluation(self) -> Arrays:
        """Held-out images, channels last, and their labels."""
        found = digits_data.evaluation(self.size)
        return {INPUT: _last(found["x"]), "labels": found["labels"]}

    def expected(self, images: Floats) -> Floats:
        """What PyTorch computes of images, channels last."""
        with torch.no_grad():
            outputs: Floats = self.network()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
        return outputs


def _last(images: Floats) -> Floats:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _features_last(layer: nn.Linear, channels: int) -> Tensor:
    """The weights of a Linear whose inputs were flattened channels first, for inputs that have them last."""
    side = round((layer.in_features // channels) ** 0.5)
    return layer.weight.detach().reshape(-1, channels, side, side).permute(0, 2, 3, 1).reshape(layer.weight.shape)


def _fit(network: nn.Sequential, size: int) -> nn.Module:
    """Give the last Linear the weights that tell the training digits apart best, by least squares."""
    images, labels = digits_data.train(size)
    body, head = network[:-1].eval(), network[-1]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        seen = body(torch.from_numpy(images)).double().numpy()
        known = np.concatenate([seen, np.ones((len(seen), 1))], axis=1)
        ridge = 1e-2 * np.trace(known.T @ known) / len(known.T) * np.eye(len(known.T))
        wanted = 10 * np.eye(10)[labels]
        found = np.linalg.solve(known.T @ known + ridge, known.T @ wanted).astype(np.float32).T
        head.weight.copy_(torch.from_numpy(found[:, :-1].copy()))
        head.bias.copy_(torch.from_numpy(found[:, -1].copy()))
    return network.eval()


def _cnn() -> nn.Module:
    network = digits_cnn.build()
    features: Any = network.features
    layers = list(features)
    for place in (0, 4):  # TFLite has no BatchNorm.
        layers[place] = nn.utils.fuse_conv_bn_eval(layers[place], layers[place + 1])
        layers[place + 1] = nn.Identity()
    network.features = nn.Sequential(*layers)
    return network


def _draw_cnn(network: Any, graph: Graph, x: int) -> int:
    convolutions, linear = network.features, network.classifier
    x = graph.pool(graph.conv(x, convolutions[0], "conv1", _RELU), 2, "pool1")
    x = graph.pool(graph.conv(x, convolutions[4], "conv2", _RELU), 2, "pool2")
    x = graph.flat(x, "flat")
    x = graph.linear(x, linear[2], "fc1", _RELU, _features_last(linear[2], 48))
    return graph.linear(x, linear[4], "logits")


class Block(nn.Module):
    """Expands, convolves depthwise, projects, and adds its input, as in MobileNetV2."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(16, 48, 1)
        self.depthwise = nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.project = nn.Conv2d(48, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.relu(self.depthwise(nn.functional.relu6(self.expand(x))))
        out: Tensor = x + self.project(seen)
        return out


def _mobile() -> nn.Module:
    torch.manual_seed(0)
    stem = (nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    return _fit(nn.Sequential(*stem, Block(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 10)), 16)


def _draw_mobile(network: Any, graph: Graph, x: int) -> int:
    block, head = network[3], network[6]
    x = graph.pool(graph.conv(x, network[0], "stem", _RELU), 2, "pool")
    seen = graph.conv(graph.conv(x, block.expand, "expand", _RELU6), block.depthwise, "depthwise", _RELU)
    x = graph.add(x, graph.conv(seen, block.project, "project"), "add")
    x = graph.flat(graph.pool(x, 2, "mean", average=True), "flat")
    return graph.linear(x, head, "logits", weight=_features_last(head, 16))


def _mlp() -> nn.Module:
    torch.manual_seed(0)
    hidden = (nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
    fitted = _fit(nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10)), 8)
    return nn.Sequential(fitted, nn.Softmax(1))


def _draw_mlp(network: Any, graph: Graph, x: int) -> int:
    layers = network[0]
    x = graph.flat(x, "flat")
    x = graph.linear(graph.linear(x, layers[1], "fc1", _RELU), layers[3], "fc2", _RELU)
    return graph.softmax(graph.linear(x, layers[5], "logits"), "probabilities")


NETS: Final = {
    "cnn": TfliteNet(_cnn, _draw_cnn),
    "mobile": TfliteNet(_mobile, _draw_mobile),
    "mlp": TfliteNet(_mlp, _draw_mlp, 8),
}
