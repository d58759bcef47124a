"""Networks whose files leave a scale to chance: takers of different scales reach one tensor through moving operators.

The joint tensor is computed in int8 (a sum or product of two convolutions, or an enlarged or pooled one). `JOINT` are
for tools that describe the inputs and outputs of convolutions only. `SKIPPED` are for mnnquant's KL, which describes
each tensor of an operator that the user does not skip: a scale is open if `skip_quant_op_names` has the sum and the
resize. MNN runs a resize on copies (CPUs with AVX2), so the operators around it do not describe its tensors either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Final

import torch
from matrix_nets import IMAGE, MatrixNet, conv, up
from torch import Tensor, nn
from torch.nn import functional

_CHANNELS: Final = 8
Step = Callable[[Tensor, Tensor], Tensor]


def add(first: Tensor, second: Tensor) -> Tensor:
    """Their sum."""
    return first + second


def multiply(first: Tensor, second: Tensor) -> Tensor:
    """Their product."""
    return first * second


def resized_sum(first: Tensor, second: Tensor, mode: str = "nearest") -> Tensor:
    """Twice the size of their sum."""
    return up(first + second, mode)


def resized_product(first: Tensor, second: Tensor, mode: str = "nearest") -> Tensor:
    """Twice the size of their product."""
    return up(first * second, mode)


def pooled_sum(first: Tensor, second: Tensor) -> Tensor:
    """Half the size of their sum."""
    return functional.max_pool2d(first + second, 2)


def take_channels(joint: Tensor, other: Tensor) -> Tensor:
    """The first channels."""
    return joint[:, :3]


def take_all(joint: Tensor, other: Tensor) -> Tensor:
    """Joined with the other tensor."""
    return torch.cat([joint, other], 1)


def take_means(joint: Tensor, other: Tensor) -> Tensor:
    """Half the size, by means."""
    return functional.avg_pool2d(joint, 2)


def take_corner(joint: Tensor, other: Tensor) -> Tensor:
    """The last channels, without an edge."""
    return joint[:, 4:, 1:, 1:]


def take_resized(joint: Tensor, other: Tensor) -> Tensor:
    """Twice the size."""
    return up(joint, "bilinear")


#: The tensor that is reached, from two convolutions.
JOINTS: Final[dict[str, Step]] = {
    "sum": add,
    "product": multiply,
    "resized sum": resized_sum,
    "pooled sum": pooled_sum,
}
#: The same for a tool that describes what it does not skip.
SKIPPED_JOINTS: Final[dict[str, Step]] = {
    "resized sum": resized_sum,
    "bilinear sum": partial(resized_sum, mode="bilinear"),
    "resized product": resized_product,
    "bilinear product": partial(resized_product, mode="bilinear"),
}
#: What moves it to the next convolution; the second argument is another tensor of the same size.
TAKERS: Final[dict[str, Step]] = {
    "slice": take_channels,
    "concat": take_all,
    "average pool": take_means,
    "crop": take_corner,
    "bilinear": take_resized,
}
_GAINS: Final = ((0.5, 2.0), (1.0, 3.0), (4.0, 1.0), (2.0, 6.0), (0.5, 2.0, 5.0), (6.0, 3.0, 1.0))


class JointNet(nn.Module):
    """Two or three takers of one tensor, each with a convolution of its own."""

    def __init__(self, joint: Step, takers: tuple[Step, ...], gains: tuple[float, ...]) -> None:
        super().__init__()
        self.first, self.second = conv(3, _CHANNELS, 3, 2), conv(3, _CHANNELS, 3, 2, gain=0.5)
        with torch.no_grad():  # The first channels are small, so that a slice has a scale of its own.
            for layer in (self.first, self.second):
                layer.weight[:4].mul_(0.3)
        self.joint, self.takers = joint, takers
        # mnncompress refuses a model with layers that compute nothing.
        pairs = zip(takers, gains, strict=True)
        others = (conv(3, 4, gain=gain) if taker is take_all else nn.Identity() for taker, gain in pairs)
        self.others = nn.ModuleList(others)
        shape = joint(torch.zeros(1, _CHANNELS, 16, 16), torch.zeros(1, _CHANNELS, 16, 16))
        widths = [taker(shape, torch.zeros(1, 4, *shape.shape[2:])).shape[1] for taker in takers]
        self.layers = nn.ModuleList(conv(width, 6, 3) for width in widths)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """A map per taker."""
        joint = self.joint(self.first(image), self.second(image))
        results = []
        for taker, other, layer in zip(self.takers, self.others, self.layers, strict=True):
            step = image.shape[2] // joint.shape[2]
            results.append(layer(taker(joint, other(image)[:, :, ::step, ::step])))
        return tuple(results)


def _nets() -> dict[str, MatrixNet]:
    nets: dict[str, MatrixNet] = {}
    for name, joint in JOINTS.items():
        for pair in combinations(TAKERS, 2):
            takers = tuple(TAKERS[taker] for taker in pair)
            nets[f"{name} to {' and '.join(pair)}"] = MatrixNet(partial(JointNet, joint, takers, (2.0, 2.0)), IMAGE)
    return nets


def _skipped_nets() -> dict[str, MatrixNet]:
    nets: dict[str, MatrixNet] = {}
    for name, joint in SKIPPED_JOINTS.items():
        for gains in _GAINS:
            takers = (take_all,) * len(gains)
            label = ", ".join(f"{gain:g}" for gain in gains)
            nets[f"{name} to concats with {label}"] = MatrixNet(partial(JointNet, joint, takers, gains), IMAGE)
    return nets


JOINT: Final = _nets()
SKIPPED: Final = _skipped_nets()
