"""Networks of the size that people ship, with seeded random weights: only time and memory are measured on them.

`REAL_SIZE_NET` names the network; `build`, `calibration` and `evaluation` are what the gate and the bare script load.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

CALIBRATION: Final = int(os.environ.get("REAL_SIZE_CALIBRATION", "128"))
EVALUATION: Final = int(os.environ.get("REAL_SIZE_EVALUATION", "200"))


def _unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """A block of a ResNet: two 3x3 convolutions, or three with a bottleneck."""

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * 4 if bottleneck else width
        if bottleneck:
            units = [_unit(inputs, width, 1), _unit(width, width, 3, stride), _unit(width, outputs, 1)]
        else:
            units = [_unit(inputs, width, 3, stride), _unit(width, width)]
        self.units = nn.ModuleList(units)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _unit(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The features after the block."""
        result = x
        for number, unit in enumerate(self.units):
            result = unit(result)
            if number + 1 < len(self.units):
                result = torch.relu(result)
        return torch.relu(result + self.shortcut(x))


def resnet(depths: tuple[int, ...], *, bottleneck: bool) -> nn.Module:
    """ResNet-18 and its kin."""
    layers: list[nn.Module] = [_unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, depth in enumerate(depths):
        for number in range(depth):
            stride = 2 if stage and not number else 1
            layers.append(Residual(inputs, 64 << stage, stride, bottleneck=bottleneck))
            inputs = (64 << stage) * (4 if bottleneck else 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


class Inverted(nn.Module):
    """A block of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = inputs * factor
        expand = [] if factor == 1 else [_unit(inputs, wide, 1), nn.ReLU6()]
        self.body = nn.Sequential(*expand, _unit(wide, wide, 3, stride, wide), nn.ReLU6(), _unit(wide, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """The features after the block."""
        result: Tensor = self.body(x)
        return x + result if self.adds else result


def mobilenet() -> nn.Module:
    """MobileNetV2."""
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    layers: list[nn.Module] = [_unit(3, 32, 3, 2), nn.ReLU6()]
    inputs = 32
    for factor, outputs, count, stride in plan:
        for number in range(count):
            layers.append(Inverted(inputs, outputs, stride if number == 0 else 1, factor))
            inputs = outputs
    return nn.Sequential(
        *layers, _unit(320, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)
    )


class Detector(nn.Module):
    """A detector in the manner of YOLO: three scales, joined top-down, a head on each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(self._down(3, 24), self._down(24, 48), self._down(48, 96))
        self.second, self.third = self._down(96, 192), self._down(192, 256)
        self.up = nn.Upsample(scale_factor=2.0)
        self.join = nn.ModuleList([self._flat(256 + 192, 128), self._flat(128 + 96, 96)])
        self.heads = nn.ModuleList([nn.Conv2d(width, 84, 1) for width in (96, 128, 256)])

    @staticmethod
    def _down(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(_unit(inputs, outputs, 3, 2), nn.ReLU(), Detector._flat(outputs, outputs))

    @staticmethod
    def _flat(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(_unit(inputs, outputs, 1), nn.ReLU(), _unit(outputs, outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Boxes and scores of all scales, [N, 84, anchors]."""
        fine = self.first(x)
        middle = self.second(fine)
        coarse = self.third(middle)
        middle = self.join[0](torch.cat([self.up(coarse), middle], 1))
        fine = self.join[1](torch.cat([self.up(middle), fine], 1))
        found = [head(part).flatten(2) for head, part in zip(self.heads, (fine, middle, coarse), strict=True)]
        return torch.cat(found, 2)


class Conformer(nn.Module):
    """Convolutions over time between attention and feed-forward layers, on 80 mel bands."""

    def __init__(self, width: int = 144, blocks: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(80, width)
        layers = [nn.TransformerEncoderLayer(width, 4, width * 4, 0.0, batch_first=True) for _ in range(blocks)]
        self.layers = nn.ModuleList(layers)
        self.over_time = nn.ModuleList([nn.Conv1d(width, width, 15, padding=7, groups=width) for _ in range(blocks)])
        self.last = nn.Linear(width, 64)

    def forward(self, x: Tensor) -> Tensor:
        """Logits per step, [N, steps, 64]."""
        x = self.first(x)
        for layer, over_time in zip(self.layers, self.over_time, strict=True):
            x = layer(x)
            x = x + over_time(x.transpose(1, 2)).transpose(1, 2)
        result: Tensor = self.last(x)
        return result


class Encoder(nn.Module):
    """A transformer encoder of 6 layers on vectors."""

    def __init__(self, width: int = 384) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 6, width * 4, 0.0, batch_first=True)
        self.body, self.last = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False), nn.Linear(width, 256)

    def forward(self, x: Tensor) -> Tensor:
        """One vector per sample, [N, 256]."""
        result: Tensor = self.last(self.body(x).mean(1))
        return result


@dataclass(frozen=True)
class Network:
    """A network and the shape of one sample."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


NETWORKS: Final = {
    "ResNet-18": Network(lambda: resnet((2, 2, 2, 2), bottleneck=False), (3, 224, 224)),
    "ResNet-50": Network(lambda: resnet((3, 4, 6, 3), bottleneck=True), (3, 224, 224)),
    "MobileNetV2": Network(mobilenet, (3, 224, 224)),
    "detector": Network(Detector, (3, 416, 416)),
    "transformer": Network(Encoder, (64, 384)),
    "Conformer": Network(Conformer, (200, 80)),
}


def chosen() -> Network:
    """The network that the environment names, at the size that it names."""
    network = NETWORKS[os.environ.get("REAL_SIZE_NET", "ResNet-18")]
    size = int(os.environ.get("REAL_SIZE", "0"))
    return Network(network.make, (3, size, size)) if size and len(network.shape) == 3 else network


def build() -> nn.Module:
    """The network, the same in every process."""
    torch.manual_seed(0)
    return chosen().make().eval()


def samples(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Smooth random samples, [count, *shape]."""
    random = np.random.default_rng(seed)
    shape = chosen().shape
    result = random.standard_normal((count, *shape), np.float32)
    return np.float32(0.5) * result + random.standard_normal((count, *[1] * len(shape)), np.float32)


def calibration() -> dict[str, npt.NDArray[np.float32]]:
    """Samples to calibrate on."""
    return {_input(): samples(CALIBRATION, 1)}


def evaluation() -> dict[str, npt.NDArray[np.float32]]:
    """Samples to judge by."""
    return {_input(): samples(EVALUATION, 2)}


def _input() -> str:
    return "input" if isinstance(build(), nn.Sequential) else "x"
