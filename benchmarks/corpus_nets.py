"""Networks that give every kind of operator that holds weights, and a TFLite model written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Arrays = dict[str, npt.NDArray[Any]]
SAMPLES: Final = 4
WORDS: Final = 40


@dataclass(frozen=True)
class Net:
    """How to build a network, and the shape of each input (without samples); inputs named `tokens` are indexes."""

    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[int, ...]]

    def module(self) -> nn.Module:
        """The network, always with the same weights."""
        torch.manual_seed(0)
        return self.build().eval()


def arrays(shapes: dict[str, tuple[int, ...]], samples: int = SAMPLES) -> Arrays:
    """Random inputs, always the same."""
    random = np.random.default_rng(0)

    def array(name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        if name == "tokens":
            return random.integers(0, WORDS, (samples, *shape))
        return random.standard_normal((samples, *shape)).astype(np.float32)

    return {name: array(name, shape) for name, shape in shapes.items()}


def _lively(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A BatchNorm that is not the identity."""
    for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
        if tensor is not None:
            tensor.uniform_(-1, 1)
    return norm


def _cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU6(), nn.Flatten()),
        *(nn.Linear(32 * 16, 48), nn.ReLU(), nn.Linear(48, 10)),
    )


def _conv1d() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(4, 32, 5, padding=2), nn.ReLU(), nn.Conv1d(32, 16, 3, dilation=2), nn.Flatten()),
        nn.Linear(16 * 20, 7),
    )


def _deconv() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)),
        nn.ConvTranspose2d(8, 8, 2, groups=8),
    )


def _grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 32, 3, groups=4), nn.ReLU(), nn.Conv2d(32, 32, 1, groups=2))


def _depthwise() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.Hardswish(), nn.Conv2d(16, 16, 3, groups=16, padding=1), nn.PReLU(16)),
        *(nn.Conv2d(16, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)),
    )


def _norms() -> nn.Module:
    return nn.Sequential(
        *(_lively(nn.BatchNorm2d(4)), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.PReLU(8)),
        *(nn.InstanceNorm2d(8, affine=True), nn.Conv2d(8, 8, 3), nn.LayerNorm(4)),
    )


def _conv3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4 * 4, 3))


def _sparse() -> nn.Module:
    """Nine weights of ten are zero, in runs as the converter's sparse kernels like them."""
    net = nn.Sequential(nn.Conv2d(16, 64, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, 40))
    for layer in (net[0], net[3]):
        weight = layer.weight.data
        assert isinstance(weight, Tensor)
        weight.mul_((torch.rand_like(weight[:1]) >= 0.9) & (torch.rand_like(weight) >= 0.1))
    return net


class _Sequence(nn.Module):
    """An embedding, a recurrent layer (a While body in MNN), a Linear."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, 32)
        self.rnn = kind(32, 16, batch_first=True)  # type: ignore[call-arg,arg-type]
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(self.table(tokens))[0][:, -1])
        return out


class _Transformer(nn.Module):
    """A learned positional table and one encoder block."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 6, 32))
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(x + self.position).mean(1))
        return out


class _TwoInputs(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(2, 16, 3)
        self.mixed = nn.Linear(16 * 36 + 5, 7)

    def forward(self, image: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.relu(self.image(image))
        return self.mixed(torch.cat([seen.flatten(1), extra], 1)), seen


class _Either(nn.Module):
    """A constant matrix, a multiplication of two inputs' products, an einsum: weights outside of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(3, 8, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.einsum("bij,bjk->bik", x, self.matrix.expand(x.shape[0], 3, 8, 8)[:, 0]))
        return out


NETS: Final = {
    "cnn": Net(_cnn, {"x": (3, 16, 16)}),
    "conv1d": Net(_conv1d, {"x": (4, 24)}),
    "deconv": Net(_deconv, {"x": (2, 7, 7)}),
    "grouped": Net(_grouped, {"x": (8, 8, 8)}),
    "depthwise": Net(_depthwise, {"x": (3, 12, 12)}),
    "norms": Net(_norms, {"x": (4, 8, 8)}),
    "conv3d": Net(_conv3d, {"x": (2, 6, 6, 6)}),
    "sparse": Net(_sparse, {"x": (16, 6, 6)}),
    "lstm": Net(lambda: _Sequence(nn.LSTM), {"tokens": (6,)}),
    "gru": Net(lambda: _Sequence(nn.GRU), {"tokens": (6,)}),
    "transformer": Net(_Transformer, {"x": (6, 32)}),
    "multi": Net(_TwoInputs, {"image": (2, 8, 8), "extra": (5,)}),
    "matrix": Net(_Either, {"x": (8, 8)}),
    "wide": Net(lambda: nn.Sequential(nn.Linear(65600, 2)), {"x": (65600,)}),
}


def write_tflite(path: Path, int8: bool = False) -> None:  # noqa: C901  As the schema lists its tables.
    """A convolution and a depthwise one in TFLite (https://github.com/tensorflow/tensorflow, schema.fbs, version 3).

    `int8` gives quantized weights and tensors.
    """
    out = flatbuffers.Builder(4096)
    random = np.random.default_rng(0)

    def table(fields: dict[int, Callable[[], None]]) -> int:
        out.StartObject(16)
        for write in fields.values():
            write()
        end: int = out.EndObject()
        return end

    def number(slot: int, value: int, kind: str = "Int32") -> dict[int, Callable[[], None]]:
        return {slot: lambda: getattr(out, f"Prepend{kind}Slot")(slot, value, 0)}

    def parts(offsets: dict[int, int]) -> dict[int, Callable[[], None]]:
        return {slot: partial(out.PrependUOffsetTRelativeSlot, slot, at, 0) for slot, at in offsets.items()}

    def tables(offsets: list[int]) -> int:
        out.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            out.PrependUOffsetTRelative(offset)
        end: int = out.EndVector()
        return end

    def vector(values: Any, kind: Any = np.int32) -> int:
        end: int = out.CreateNumpyVector(np.array(values, kind))
        return end

    def tensor(name: str, shape: tuple[int, ...], buffer: int) -> int:
        offsets = {0: vector(shape), 3: out.CreateString(name)}
        float32, int32, signed8 = 0, 2, 9
        if int8:
            groups = 12 if buffer else 1
            scales, zeros = np.full(groups, 0.02 if buffer else 0.05), np.zeros(groups)
            offsets[4] = table(parts({2: vector(scales, np.float32), 3: vector(zeros, np.int64)}))
        kind = (int32 if len(shape) == 1 else signed8) if int8 else float32
        return table(parts(offsets) | number(1, kind, "Int8") | number(2, buffer, "Uint32"))

    shapes = [(1, 8, 8, 4), (12, 3, 3, 4), (12,), (1, 8, 8, 12), (1, 3, 3, 12), (12,), (1, 6, 6, 12)]
    names = ("input", "filter", "bias", "seen", "filter2", "bias2", "output")
    holders = (0, 1, 2, 0, 3, 4, 0)
    buffers = [table({})]
    for shape, holder in zip(shapes, holders, strict=True):
        if holder:
            values = random.standard_normal(shape)
            whole = np.int32 if len(shape) == 1 else np.int8
            stored = np.round(values * 10).astype(whole) if int8 else values.astype(np.float32)
            buffers.append(table(parts({0: vector(stored.reshape(-1).view(np.uint8), np.uint8)})))
    tensors = [tensor(*item) for item in zip(names, shapes, holders, strict=True)]
    valid = number(0, 1, "Int8")
    conv = table(number(1, 1) | number(2, 1))
    depthwise = table(valid | number(1, 1) | number(2, 1) | number(3, 1))
    operators = [
        table(parts({1: vector((0, 1, 2)), 2: vector((3,)), 4: conv}) | number(3, 1, "Uint8")),
        table(
            parts({1: vector((3, 4, 5)), 2: vector((6,)), 4: depthwise})
            | number(0, 1, "Uint32")
            | number(3, 2, "Uint8")
        ),
    ]
    codes = [table(number(0, code, "Int8") | number(2, 1)) for code in (3, 4)]
    lists = {0: tables(tensors), 1: vector((0,)), 2: vector((6,)), 3: tables(operators), 4: out.CreateString("main")}
    graph = table(parts(lists))
    model = {1: tables(codes), 2: tables([graph]), 3: out.CreateString("by hand"), 4: tables(buffers)}
    out.Finish(table(parts(model) | number(0, 3, "Uint32")), b"TFL3")
    path.write_bytes(bytes(out.Output()))
