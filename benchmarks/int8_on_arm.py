"""The int8 operators that MNN computes differently on ARM and on x86, by shape.

    python benchmarks/int8_on_arm.py [OPERATOR ...]

Each operator is between two convolutions. Recipe `int8` quantizes the network; then every other tensor is described as
int8 too, as mnnquant does, so that each operator runs in int8 that can. Each operator gets equal inputs on this host
and on the emulated processor. Prints the operators of which a code differs: by how many steps at most, and in how many
values, by channels and size.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from matrix_nets import Arrays, smooth
from torch import Tensor, nn
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.checks.target.check import OpDifference, Scales, differences
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.commands import RASTER, commands
from pytest_mnnquant.mnnfile.model import Model, TensorQuant, read_model
from pytest_mnnquant.mnnfile.quants import write_with_quants
from pytest_mnnquant.quantize.ranges import calibrate_runtime
from pytest_mnnquant.runtime.operator_outputs import operators_on_host, operators_on_target
from pytest_mnnquant.runtime.options import RunOptions, Send
from pytest_mnnquant.sources.spec import Spec
from pytest_mnnquant.targets.emulator import NAME, Emulator, cache_folder

CPU: Final = "cortex-a76"
TIMEOUT: Final = 300.0
SAMPLES: Final = 8
#: Channels, and height and width, of the operator's input.
SHAPES: Final = ((4, (8, 8)), (3, (7, 9)), (13, (5, 11)), (16, (6, 17)), (21, (2, 33)))
#: Operators that MNN runs in int8 only if their output has their input's scale.
SAME_SCALE: Final = (RASTER, "Pooling", "Interp", "ReLU", "ReLU6")
#: Operators whose tensors are observed and described.
COMPUTING: Final = (
    *SAME_SCALE,
    "Convolution",
    "ConvolutionDepthwise",
    "Softmax",
    "LayerNorm",
    "BinaryOp",
    "Scale",
    "PReLU",
    "UnaryOp",
)

Step = Callable[[Tensor], Tensor]


def depthwise(channels: int, kernel: int, **options: Any) -> nn.Module:
    """A depthwise convolution."""
    return nn.Conv2d(channels, channels, kernel, groups=channels, **options)


#: Operators by name, for a number of channels.
OPERATORS: Final[Mapping[str, Callable[[int], Step]]] = {
    "average pool 2": lambda _: lambda x: functional.avg_pool2d(x, 2),
    "average pool 3, padded": lambda _: lambda x: functional.avg_pool2d(x, 3, 1, 1),
    "average pool 3, padding not counted": lambda _: (
        lambda x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    ),
    "global average": lambda _: lambda x: functional.adaptive_avg_pool2d(x, 1),
    "max pool 2": lambda _: lambda x: functional.max_pool2d(x, 2),
    "max pool 3, stride 1": lambda _: lambda x: functional.max_pool2d(x, 3, 1, 1),
    "max pool 5": lambda _: lambda x: functional.max_pool2d(x, 5, 2, 2),
    "softmax over channels": lambda _: lambda x: functional.softmax(x, 1),
    "softmax over a row": lambda _: lambda x: functional.softmax(x, 3),
    "depthwise 3": lambda channels: depthwise(channels, 3, padding=1),
    "depthwise 5, stride 2": lambda channels: depthwise(channels, 5, padding=2, stride=2),
    "depthwise 3, dilated": lambda channels: depthwise(channels, 3, padding=2, dilation=2),
    "depthwise 1 x 7": lambda channels: depthwise(channels, (1, 7), padding=(0, 3)),  # type: ignore[arg-type]
    "convolution 1, stride 2": lambda channels: nn.Conv2d(channels, 9, 1, stride=2),
    "convolution 3, dilated": lambda channels: nn.Conv2d(channels, 9, 3, padding=2, dilation=2),
    "convolution 7": lambda channels: nn.Conv2d(channels, 5, 7, padding=3),
    "sum": lambda _: lambda x: x + x.roll(1, 2),
    "product": lambda _: lambda x: x * functional.max_pool2d(x, 3, 1, 1),
    "difference": lambda _: lambda x: x - x.roll(1, 3),
    "maximum": lambda _: lambda x: torch.maximum(x, x.roll(1, 2)),
    "minimum": lambda _: lambda x: torch.minimum(x, x.roll(1, 2)),
    "sum with ReLU": lambda _: lambda x: functional.relu(x + x.roll(1, 3)),
    "product with a mean": lambda _: lambda x: x * functional.adaptive_avg_pool2d(x, 1),
    "ReLU": lambda _: lambda x: functional.relu(x.roll(1, 3)),
    "ReLU6": lambda _: lambda x: functional.relu6(x.roll(1, 3)),
    "PReLU": lambda channels: nn.PReLU(channels, 0.2),
    "LeakyReLU": lambda _: lambda x: functional.leaky_relu(x, 0.1),
    "sigmoid": lambda _: torch.sigmoid,
    "h-swish": lambda _: functional.hardswish,
    "absolute": lambda _: torch.abs,
    "negative": lambda _: torch.neg,
    "LayerNorm": lambda channels: LastNorm(channels),
    "BatchNorm": lambda channels: Scaled(channels),
    "concat": lambda _: lambda x: torch.cat([x, x[:, :1], functional.relu(x)], 1),
    "slice": lambda _: lambda x: x[:, 1:, :, 1:-1],
    "padding": lambda _: lambda x: functional.pad(x, (1, 2, 0, 1)),
    "reflection": lambda _: lambda x: functional.pad(x, (1, 2, 1, 1), mode="reflect"),
    "transpose": lambda _: lambda x: x.transpose(2, 3),
    "nearest, 2": lambda _: lambda x: functional.interpolate(x, scale_factor=2.0),
    "nearest, odd": lambda _: lambda x: functional.interpolate(x, size=(11, 23)),
    "bilinear, 2": lambda _: lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "bilinear, odd": lambda _: lambda x: functional.interpolate(x, size=(11, 23), mode="bilinear"),
    "bilinear, aligned": lambda _: (
        lambda x: functional.interpolate(x, size=(16, 32), mode="bilinear", align_corners=True)
    ),
}


class LastNorm(nn.Module):
    """LayerNorm over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        result: Tensor = self.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return result


class Scaled(nn.Module):
    """A BatchNorm that follows no convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 1.5)
            self.norm.bias.normal_()

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        result: Tensor = self.norm(features.roll(1, 3))
        return result


class Beside(nn.Module):
    """Operators, each between two convolutions, side by side."""

    def __init__(self, names: Sequence[str], channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps = [OPERATORS[name](channels) for name in names]
        self.registered = nn.ModuleList(step for step in self.steps if isinstance(step, nn.Module))
        self.first = nn.ModuleList(nn.Conv2d(3, channels, 3, padding=1) for _ in names)
        with torch.no_grad():
            features = torch.zeros(1, channels, *size)
            made = [step(features).shape[1] for step in self.steps]
        self.last = nn.ModuleList(nn.Conv2d(number, 4, 1) for number in made)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """A map for each operator."""
        return tuple(
            last(step(first(image))) for first, step, last in zip(self.first, self.steps, self.last, strict=True)
        )


def everything_described(model: Model, base: Model, images: Arrays, path: Path) -> Model:
    """A copy of an int8 model that describes all float tensors."""
    ops = tuple({step.op.name: step.op for step in commands(base) if step.kind in COMPUTING}.values())
    seen = calibrate_runtime(base, ops, Dataset(dict(images)), RunOptions(TIMEOUT)).ranges
    spans = {base.tensor_names[tensor]: span for tensor, span in seen.items()}
    quants = {tensor: quant for tensor, quant in model.tensor_quants.items() if quant.data_type == "int8"}
    for step in commands(model):
        given, name = quants.get(step.inputs[0]), model.tensor_names[step.output]
        if given is not None and step.kind in SAME_SCALE and step.op.kind in COMPUTING:
            quants[step.output] = given
        elif name in spans:
            quants.setdefault(step.output, TensorQuant(*spans[name].affine(), -127, 127, "int8"))
    write_with_quants(model, quants, path)
    return read_model(path)


def compared(model: Model, images: Arrays, send: Send) -> list[tuple[OpDifference, bool]]:
    """The operators, and whether they ran in int8."""
    options = RunOptions(TIMEOUT)
    few = {name: array[:SAMPLES] for name, array in images.items()}
    host, samples = operators_on_host(model, few, list(range(SAMPLES)), options, held=1e9)
    inputs = {name: array[samples] for name, array in few.items()}
    target = operators_on_target(model, inputs, host, RunOptions(TIMEOUT, send=send))
    quants = model.tensor_quants
    scales = {
        op.name: Scales(
            *(tuple(quants[each].scale for each in side if each in quants) for side in (op.inputs, op.outputs))
        )
        for op in model.ops
    }
    return [(item, host[item.key].int8) for item in differences(host, target, scales)[0]]


def main() -> None:
    """Print a line per operator of which a code differs."""
    names = sys.argv[1:] or list(OPERATORS)
    emulated = Emulator(folder=cache_folder() / NAME).target(CPU).send
    for channels, size in SHAPES:
        images = {"image": smooth((32, 3, *size), 1)}
        with tempfile.TemporaryDirectory(prefix="int8-") as name:
            folder = Path(name)
            settings = ModelSettings("net", "net", folder, timeout=TIMEOUT)
            values = FixtureValues(Beside(names, channels, size).eval(), images, images)
            gate = SourceUnderTest(settings, Spec("net", "net"), Store(folder), lambda _: None, values)
            written = variant_under_test(gate, "int8", "eval").model
            described = everything_described(written, gate.prepared.model, images, folder / "described.mnn")
            for label, model in (("int8", written), ("all described", described)):
                items = compared(model, images, emulated)
                in_int8 = sum(int8 for _, int8 in items)
                print(f"{channels} x {size}, {label}: {len(items)} operators, {in_int8} in int8", flush=True)
                for item, int8 in items:
                    if item.steps > 0 and (int8 or item.steps > 1):
                        share = item.unlike / item.values
                        kind = "int8" if int8 else "float"
                        print(f"  {item.title}, {kind}: {item.steps:.3g} steps, {share:.1%} of the values", flush=True)


if __name__ == "__main__":
    main()
