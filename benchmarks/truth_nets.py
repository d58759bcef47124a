"""Four small nets whose MaxPool follows a ReLU, or a tensor of both signs, trained on the digits of the fixtures.

Like LeNet (1998), VGG (2014), SqueezeNet (2016) and ResNet (2015), each a hundredth of its size. In the mixed nets the
activation comes after the pool, not before it. Trained in seconds, seeded, and kept in a folder of the caller's (see
architectures.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from architectures import Architecture
from torch import Tensor, nn


def pooled(mixed: bool, kernel: int = 2, stride: int = 2, padding: int = 0) -> tuple[nn.Module, ...]:
    """MaxPool after ReLU; or before a hard-swish, on a tensor of both signs."""
    pool = nn.MaxPool2d(kernel, stride, padding)
    return (pool, nn.Hardswish()) if mixed else (nn.ReLU(), pool)


class LeNet(nn.Module):
    """Two 5x5 convolutions, each with a MaxPool, and three Linear layers."""

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 8, 5, padding=2), *pooled(mixed), nn.Conv2d(8, 16, 5, padding=2), *pooled(mixed)),
            *(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits


class Vgg(nn.Module):
    """3x3 convolutions in pairs with BatchNorm, a MaxPool after each pair, two Linear layers."""

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(*self._pair(1, 12, mixed), *self._pair(12, 24, mixed), *self._pair(24, 32, mixed))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    @staticmethod
    def _pair(given: int, made: int, mixed: bool) -> tuple[nn.Module, ...]:
        first = (nn.Conv2d(given, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU())
        return (*first, nn.Conv2d(made, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), *pooled(mixed))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and 3x3 side by side. The last ReLU may come after a pool instead."""

    def __init__(self, given: int, squeezed: int, made: int, last: bool = True) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(given, squeezed, 1), nn.ReLU())
        self.one = nn.Conv2d(squeezed, made, 1)
        self.three = nn.Conv2d(squeezed, made, 3, padding=1)
        self.last = nn.ReLU() if last else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Twice `made` channels."""
        x = self.squeeze(x)
        joined: Tensor = self.last(torch.cat([self.one(x), self.three(x)], 1))
        return joined


class SqueezeNet(nn.Module):
    """A stem with MaxPool, fire modules, MaxPool, a fire module, and classes averaged over the plane."""

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        middle: tuple[nn.Module, ...] = (Fire(32, 8, 16, last=not mixed), nn.MaxPool2d(3, 2, 1))
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 24, 3, padding=1), *pooled(mixed, 3, 2, 1), Fire(24, 8, 16)),
            *(*middle, *((nn.Hardswish(),) if mixed else ()), Fire(32, 12, 24)),
            *(nn.Conv2d(48, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits


class Block(nn.Module):
    """A residual block; where the width changes, a 1x1 convolution is the shortcut."""

    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU()),
            *(nn.Conv2d(made, made, 3, padding=1, bias=False), nn.BatchNorm2d(made)),
        )
        self.shortcut = nn.Conv2d(given, made, 1, stride) if stride > 1 or given != made else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        return torch.relu(self.layers(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem with MaxPool, residual blocks, an average over the plane, a Linear layer."""

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), *pooled(mixed, 3, 2, 1))
        )
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.blocks(self.stem(x)))
        return logits


_KINDS: Final[dict[str, Callable[[bool], nn.Module]]] = {
    "LeNet": LeNet,
    "VGG": Vgg,
    "SqueezeNet": SqueezeNet,
    "ResNet": ResNet,
}


def _architecture(kind: Callable[[bool], Any], mixed: bool) -> Architecture:
    # Without BatchNorm, fire modules learn slowly.
    return Architecture(lambda: kind(mixed), kind.__doc__ or "", epochs=40 if kind is SqueezeNet else 12)


#: The networks by name; "mixed" where MaxPool follows a tensor of both signs.
NETS: Final = {
    f"{name} {'mixed' if mixed else 'ReLU'}": _architecture(kind, mixed)
    for name, kind in _KINDS.items()
    for mixed in (False, True)
}
