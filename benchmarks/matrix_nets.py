"""Small networks of the kinds that people quantize: backbones, necks, heads, sequences.

Each has seeded random weights (He), scaled so that joined features differ in magnitude, as they do in trained networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

Arrays = dict[str, npt.NDArray[np.float32]]
Activation = Callable[[Tensor], Tensor]
SIZE: Final = 32


def conv(inputs: int, outputs: int, kernel: Any = 3, stride: int = 1, gain: float = 1.0, **options: Any) -> nn.Conv2d:
    """A convolution with He weights times `gain`."""
    padding = options.pop("padding", None)
    padding = kernel // 2 if padding is None else padding
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, **options)
    nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        layer.weight.mul_(gain)
        if layer.bias is not None:
            layer.bias.normal_(0, 0.05)
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    """A BatchNorm with statistics as training leaves them."""
    layer = nn.BatchNorm2d(channels)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 1.5)
        layer.bias.normal_(0, 0.2)
        layer.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
        layer.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return layer


def pooled(features: Tensor) -> Tensor:
    """The mean of each channel."""
    return functional.adaptive_avg_pool2d(features, 1).flatten(1)


def up(features: Tensor, mode: str = "nearest") -> Tensor:
    """Twice the size."""
    return functional.interpolate(
        features, scale_factor=2.0, mode=mode, align_corners=False if mode == "bilinear" else None
    )


class Backbone(nn.Module):
    """Three scales, 16x16, 8x8 and 4x4, of different magnitude."""

    def __init__(self, channels: Sequence[int] = (16, 24, 32), gain: float = 0.5, act: Activation = functional.silu):
        super().__init__()
        self.act = act
        self.first, self.second = conv(3, channels[0], 3, 2), conv(channels[0], channels[1], 3, 2)
        self.third = conv(channels[1], channels[2], 3, 2, gain)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The features, finest first."""
        fine = self.act(self.first(image))
        middle = self.act(self.second(fine))
        return fine, middle, self.act(self.third(middle))


class Pan(nn.Module):
    """The neck of YOLOv5 and v8, PicoDet, NanoDet: a feature goes upsampled into a concat, unmodified into another."""

    def __init__(self, act: Activation = functional.silu, mode: str = "nearest"):
        super().__init__()
        self.act, self.mode, self.backbone = act, mode, Backbone(act=act)
        self.down, self.fuse3, self.fuse4 = conv(24, 24, 3, 2), conv(56, 24), conv(56, 32)
        self.head3, self.head4 = conv(24, 6, 1), conv(32, 6, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps."""
        _, middle, deep = self.backbone(image)
        high = self.act(self.fuse3(torch.cat([up(deep, self.mode), middle], 1)))
        low = self.act(self.fuse4(torch.cat([self.act(self.down(high)), deep], 1)))
        return self.head3(high), self.head4(low)


class BiFpn(nn.Module):
    """One layer of EfficientDet's neck: weighted sums of maps that are resized up and pooled down."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.lateral = nn.ModuleList((conv(16, 16, 1), conv(24, 16, 1), conv(32, 16, 1, gain=3.0)))
        self.fuse = nn.ModuleList(nn.Sequential(conv(16, 16, groups=16), conv(16, 16, 1)) for _ in range(4))
        self.head = conv(16, 5, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Three maps."""
        fine, middle, deep = (layer(one) for layer, one in zip(self.lateral, self.backbone(image), strict=True))
        pool = functional.max_pool2d
        middle_up = functional.silu(self.fuse[0](0.6 * middle + 0.4 * up(deep)))
        fine_out = functional.silu(self.fuse[1](0.5 * fine + 0.5 * up(middle_up)))
        middle_out = functional.silu(self.fuse[2](0.3 * middle + 0.3 * middle_up + 0.4 * pool(fine_out, 3, 2, 1)))
        deep_out = functional.silu(self.fuse[3](0.5 * deep + 0.5 * pool(middle_out, 3, 2, 1)))
        return self.head(fine_out), self.head(middle_out), self.head(deep_out)


class Fpn(nn.Module):
    """Lateral convolutions and sums, top down."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(act=functional.relu)
        self.lateral = nn.ModuleList((conv(16, 16, 1), conv(24, 16, 1), conv(32, 16, 1)))
        self.smooth = nn.ModuleList(conv(16, 16) for _ in range(3))
        self.head = conv(16, 4, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Three maps and a coarser one."""
        fine, middle, deep = (layer(one) for layer, one in zip(self.lateral, self.backbone(image), strict=True))
        middle = middle + up(deep)
        fine = fine + up(middle)
        maps = [functional.relu(layer(one)) for layer, one in zip(self.smooth, (fine, middle, deep), strict=True)]
        maps.append(functional.max_pool2d(maps[-1], 1, 2))
        return tuple(self.head(one) for one in maps)


class HrNet(nn.Module):
    """Two branches that exchange their features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2, bias=False), norm(16), nn.ReLU())
        self.high = nn.ModuleList(nn.Sequential(conv(16, 16, bias=False), norm(16)) for _ in range(2))
        self.low = nn.ModuleList((nn.Sequential(conv(16, 32, 3, 2, bias=False), norm(32)), conv(32, 32)))
        self.to_low, self.to_high = conv(16, 32, 3, 2), conv(32, 16, 1, gain=0.3)
        self.last = conv(48, 8, 1)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        stem = self.stem(image)
        high = functional.relu(stem + self.high[0](stem))
        low = functional.relu(self.low[0](stem))
        high, low = (
            functional.relu(self.high[1](high) + up(self.to_high(low))),
            functional.relu(self.low[1](low) + self.to_low(high)),
        )
        result: Tensor = self.last(torch.cat([high, up(low, "bilinear")], 1))
        return result


class UNet(nn.Module):
    """Down, and up again with skips."""

    def __init__(self, mode: str, gain: float = 0.25) -> None:
        super().__init__()
        self.mode, self.backbone = mode, Backbone(gain=gain)
        self.transposed = nn.ModuleList(nn.ConvTranspose2d(c, c, 2, 2) for c in (32, 24))
        self.second, self.first, self.head = conv(56, 24, gain=0.3), conv(40, 16), conv(16, 2, 1)

    def enlarged(self, features: Tensor, stage: int) -> Tensor:
        """Twice the size, by interpolation or a transposed convolution."""
        if self.mode == "transposed":
            result: Tensor = self.transposed[stage](features)
            return result
        return up(features, self.mode)

    def forward(self, image: Tensor) -> Tensor:
        """A map of half the size."""
        fine, middle, deep = self.backbone(image)
        features = functional.silu(self.second(torch.cat([self.enlarged(deep, 0), middle], 1)))
        result: Tensor = self.head(functional.silu(self.first(torch.cat([self.enlarged(features, 1), fine], 1))))
        return result


class Sppf(nn.Module):
    """YOLO's pyramid of pools."""

    def __init__(self, act: Activation = functional.silu) -> None:
        super().__init__()
        self.act = act
        self.a, self.b, self.before = conv(3, 16, 3, 2, 2.0), conv(16, 32, 3, 2, 2.0), conv(32, 16, 1, gain=2.0)
        self.after, self.pool = conv(64, 48, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        features = self.act(self.before(self.act(self.b(self.act(self.a(image))))))
        once = self.pool(features)
        twice = self.pool(once)
        return self.act(self.after(torch.cat([features, once, twice, self.pool(twice)], 1)))


class Inception(nn.Module):
    """Four branches, one of them a pool."""

    def __init__(self, act: Activation) -> None:
        super().__init__()
        self.act, self.stem = act, conv(3, 24, 3, 2)
        self.one, self.three, self.five = conv(24, 16, 1), conv(24, 16, 3, gain=2.0), conv(24, 8, 5)
        self.pooled, self.head = conv(24, 8, 1, gain=0.3), nn.Linear(48, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        stem = self.act(self.stem(image))
        largest = functional.max_pool2d(stem, 3, 1, 1)
        branches = (self.one(stem), self.three(stem), self.five(stem), self.pooled(largest))
        joined = torch.cat([self.act(one) for one in branches], 1)
        result: Tensor = self.head(pooled(functional.max_pool2d(joined, 2)))
        return result


class DenseNet(nn.Module):
    """Each layer sees all before it; BatchNorm and ReLU before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 2)
        self.norms = nn.ModuleList(norm(16 + 8 * i) for i in range(3))
        self.layers = nn.ModuleList(conv(16 + 8 * i, 8) for i in range(3))
        self.turn, self.head = conv(40, 20, 1), nn.Linear(20, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        features = self.stem(image)
        for before, layer in zip(self.norms, self.layers, strict=True):
            features = torch.cat([features, layer(functional.relu(before(features)))], 1)
        features = functional.avg_pool2d(functional.relu(self.turn(features)), 2)
        result: Tensor = self.head(pooled(features))
        return result


class Res2Net(nn.Module):
    """A bottleneck whose channels are split and convolved in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv(3, 32, 3, 2), conv(32, 32, 1)
        self.inner, self.last = nn.ModuleList(conv(8, 8) for _ in range(3)), conv(32, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        stem = functional.relu(self.stem(image))
        parts = functional.relu(self.first(stem)).chunk(4, 1)
        made = [parts[0]]
        for layer, part in zip(self.inner, parts[1:], strict=True):
            made.append(functional.relu(layer(part if len(made) == 1 else part + made[-1])))
        joined = functional.relu(stem + self.last(torch.cat(made, 1)))
        result: Tensor = self.head(pooled(joined))
        return result


class ShuffleNet(nn.Module):
    """Two units of ShuffleNet v2: split, join, shuffle the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 32, 3, 2)
        self.units = nn.ModuleList(
            nn.Sequential(
                *(conv(16, 16, 1, bias=False), norm(16), nn.ReLU(), conv(16, 16, groups=16, bias=False), norm(16)),
                *(conv(16, 16, 1, bias=False), norm(16), nn.ReLU()),
            )
            for _ in range(3)
        )
        self.head = nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        features = functional.max_pool2d(functional.relu(self.stem(image)), 3, 2, 1)
        for unit in self.units:
            left, right = features.chunk(2, 1)
            joined = torch.cat([left, unit(right)], 1)
            n, c, h, w = joined.shape
            features = joined.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        result: Tensor = self.head(pooled(features))
        return result


class GhostNet(nn.Module):
    """Cheap features by depthwise convolutions, joined with what they are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 2)
        self.primary = nn.ModuleList((conv(16, 16, 1), conv(32, 8, 1)))
        self.cheap = nn.ModuleList((conv(16, 16, groups=16), conv(8, 8, groups=8)))
        self.head = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        stem = functional.relu(self.stem(image))
        first = functional.relu(self.primary[0](stem))
        features = torch.cat([first, functional.relu(self.cheap[0](first))], 1)
        second = self.primary[1](features)
        features = stem + torch.cat([second, self.cheap[1](second)], 1)
        result: Tensor = self.head(pooled(features))
        return result


class Inverted(nn.Module):
    """MobileNet's inverted residual; `squeeze` adds its squeeze and excitation."""

    def __init__(self, inputs: int, outputs: int, act: nn.Module, stride: int = 1, squeeze: bool = False) -> None:
        super().__init__()
        inner = inputs * 3
        self.expand = nn.Sequential(conv(inputs, inner, 1, bias=False), norm(inner), act)
        self.depth = nn.Sequential(conv(inner, inner, 3, stride, groups=inner, bias=False), norm(inner), act)
        self.project = nn.Sequential(conv(inner, outputs, 1, bias=False), norm(outputs))
        self.gate = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(inner, 8, 1), nn.ReLU(), conv(8, inner, 1), nn.Hardsigmoid())
            if squeeze
            else None
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        inner = self.depth(self.expand(x))
        if self.gate is not None:
            inner = inner * self.gate(inner)
        result: Tensor = self.project(inner)
        return x + result if self.adds else result


class MobileNet(nn.Module):
    """Inverted residuals and a classifier."""

    def __init__(self, act: nn.Module, squeeze: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2, bias=False), norm(16), act)
        self.blocks = nn.Sequential(
            *(Inverted(16, 16, act, 1, squeeze), Inverted(16, 24, act, 2, squeeze), Inverted(24, 24, act, 1, squeeze))
        )
        self.head = nn.Sequential(conv(24, 48, 1), act, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        result: Tensor = self.head(self.blocks(self.stem(image)))
        return result


class Ssd(nn.Module):
    """Heads on two scales, their answers joined: boxes and scores."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(act=functional.relu)
        self.boxes, self.scores = nn.ModuleList((conv(24, 8), conv(32, 8))), nn.ModuleList((conv(24, 6), conv(32, 6)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [n, anchors, 4] and scores [n, anchors, 3]."""
        _, *maps = self.backbone(image)

        def joined(layers: nn.ModuleList, size: int) -> Tensor:
            flat = [layer(one).permute(0, 2, 3, 1).flatten(1) for layer, one in zip(layers, maps, strict=True)]
            together = torch.cat(flat, 1)
            return together.view(len(together), -1, size)

        return joined(self.boxes, 4), joined(self.scores, 3).softmax(-1)


class DbNet(nn.Module):
    """A text detector: an FPN whose maps are enlarged to one size and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(act=functional.relu)
        self.lateral = nn.ModuleList((conv(16, 16, 1), conv(24, 16, 1), conv(32, 16, 1)))
        self.smooth = nn.ModuleList(conv(16, 8, gain=gain) for gain in (1.0, 0.5, 2.0))
        self.binary = nn.Sequential(conv(24, 8), nn.ReLU(), nn.ConvTranspose2d(8, 1, 2, 2))

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities."""
        fine, middle, deep = (layer(one) for layer, one in zip(self.lateral, self.backbone(image), strict=True))
        middle = middle + up(deep)
        fine = fine + up(middle)
        maps = [layer(one) for layer, one in zip(self.smooth, (fine, middle, deep), strict=True)]
        joined = torch.cat([maps[0], up(maps[1]), up(up(maps[2]))], 1)
        result: Tensor = self.binary(joined).sigmoid()
        return result


class Aspp(nn.Module):
    """DeepLab's head: dilated convolutions and the mean of the picture, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2), nn.ReLU(), conv(16, 24, 3, 2), nn.ReLU())
        self.branches = nn.ModuleList(
            (conv(24, 12, 1), conv(24, 12, 3, padding=2, dilation=2), conv(24, 12, 3, padding=4, dilation=4))
        )
        self.mean, self.join, self.last = conv(24, 12, 1, gain=0.3), conv(48, 16, 1), conv(16, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        """A map of the picture's size."""
        stem = self.stem(image)
        maps = [functional.relu(layer(stem)) for layer in self.branches]
        mean = functional.relu(self.mean(functional.adaptive_avg_pool2d(stem, 1)))
        maps.append(functional.interpolate(mean, size=stem.shape[2:], mode="bilinear", align_corners=False))
        result: Tensor = self.last(functional.relu(self.join(torch.cat(maps, 1))))
        return functional.interpolate(result, scale_factor=4, mode="bilinear", align_corners=False)


class PixelShuffle(nn.Module):
    """Super-resolution: residual blocks and a pixel shuffle, added to the enlarged picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = conv(3, 24), conv(24, 24), conv(24, 12, gain=0.3)

    def forward(self, image: Tensor) -> Tensor:
        """A picture of twice the size."""
        features = functional.relu(self.first(image))
        features = features + functional.relu(self.second(features))
        return functional.pixel_shuffle(self.third(features), 2) + up(image, "bilinear")


class Siamese(nn.Module):
    """One backbone for two pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.join = Backbone(act=functional.relu), conv(64, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        """What differs."""
        joined = torch.cat([self.backbone(image)[2], self.backbone(other)[2]], 1)
        result: Tensor = self.head(pooled(functional.relu(self.join(joined))))
        return result


class ConvNext(nn.Module):
    """Depthwise 7x7, LayerNorm over the channels, an MLP with GELU, a scaled residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = conv(3, 24, 4, 4, padding=0), conv(24, 24, 7, groups=24)
        self.norm, self.wide, self.back = nn.LayerNorm(24), nn.Linear(24, 96), nn.Linear(96, 24)
        self.scale = nn.Parameter(torch.full((24,), 0.5))
        self.head = nn.Linear(24, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        stem = self.stem(image)
        inner = self.norm(self.depth(stem).permute(0, 2, 3, 1))
        inner = self.scale * self.back(functional.gelu(self.wide(inner)))
        result: Tensor = self.head(pooled(stem + inner.permute(0, 3, 1, 2)))
        return result


class Block(nn.Module):
    """Attention and an MLP, each with its LayerNorm and residual. `window` tokens see each other; None: all."""

    def __init__(self, width: int, window: int | None = None) -> None:
        super().__init__()
        self.window, self.heads = window, 4
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.back = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def attended(self, x: Tensor) -> Tensor:
        """Self-attention of [n, tokens, width]."""
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1)
        result: Tensor = self.out((weights @ v).transpose(1, 2).reshape(n, t, c))
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in the shape of the input; in windows they are a square map [n, side * side, width]."""
        inner = self.norm1(x)
        if self.window is None:
            x = x + self.attended(inner)
        else:
            n, t, c = x.shape
            side, w = int(t**0.5), self.window
            parts = inner.view(n, side // w, w, side // w, w, c).transpose(2, 3).reshape(-1, w * w, c)
            made = self.attended(parts).view(n, side // w, side // w, w, w, c).transpose(2, 3).reshape(n, t, c)
            x = x + made
        result: Tensor = x + self.back(functional.gelu(self.wide(self.norm2(x))))
        return result


class Vit(nn.Module):
    """Patches, blocks, a classifier; with `window` as Swin does, with patch merging."""

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window, self.patches = window, conv(3, 32, 4, 4, padding=0)
        self.first, self.merge = Block(32, window), nn.Linear(128, 48)
        self.second = Block(48 if window else 32, window)
        self.place = nn.Parameter(torch.randn(1, 64, 32) * 0.1)
        self.head = nn.Linear(48 if window else 32, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        tokens = self.first(self.patches(image).flatten(2).transpose(1, 2) + self.place)
        if self.window:
            n, t, c = tokens.shape
            side = int(t**0.5)
            grid = tokens.view(n, side // 2, 2, side // 2, 2, c).permute(0, 1, 3, 4, 2, 5).reshape(n, -1, 4 * c)
            tokens = self.merge(grid)
        result: Tensor = self.head(self.second(tokens).mean(1))
        return result


class Conformer(nn.Module):
    """A convolution module and attention over the steps of a signal [n, 32, 48]."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(32, 32)
        self.attention = Block(32)
        self.gated, self.depth = nn.Conv1d(32, 64, 1), nn.Conv1d(32, 32, 7, padding=3, groups=32)
        self.norm, self.back, self.head = nn.BatchNorm1d(32), nn.Conv1d(32, 32, 1), nn.Linear(32, 12)

    def forward(self, signal: Tensor) -> Tensor:
        """Scores of each step, [n, 48, 12]."""
        x = self.attention(self.before(signal.transpose(1, 2)))
        inner = functional.glu(self.gated(x.transpose(1, 2)), 1)
        x = x + self.back(functional.silu(self.norm(self.depth(inner)))).transpose(1, 2)
        result: Tensor = self.head(x)
        return result


class Crnn(nn.Module):
    """Columns of a picture's features as the steps of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, 16), nn.ReLU(), nn.MaxPool2d(2), conv(16, 24), nn.ReLU(), nn.MaxPool2d(2))
        self.down, self.recurrent = conv(24, 24, (8, 1), padding=0), nn.GRU(24, 24, batch_first=True)
        self.head = nn.Linear(24, 11)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of each column, [n, 8, 11]."""
        columns = functional.relu(self.down(self.features(image))).squeeze(2).transpose(1, 2)
        result: Tensor = self.head(self.recurrent(columns)[0])
        return result


class Recurrent(nn.Module):
    """Steps of a signal [n, 32, 48]."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.before, self.layer, self.head = nn.Linear(32, 32), kind(32, 32, batch_first=True), nn.Linear(32, 8)

    def forward(self, signal: Tensor) -> Tensor:
        """Logits."""
        result: Tensor = self.head(self.layer(functional.relu(self.before(signal.transpose(1, 2))))[0][:, -1])
        return result


class Tcn(nn.Module):
    """Dilated convolutions over a signal [n, 32, 48] with residuals, causal."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(32, 32, 3, dilation=2**i) for i in range(3))
        self.head = nn.Linear(32, 8)

    def forward(self, signal: Tensor) -> Tensor:
        """Logits."""
        for number, layer in enumerate(self.layers):
            signal = functional.relu(signal + layer(functional.pad(signal, (2 << number, 0))))
        result: Tensor = self.head(signal[..., -1])
        return result


@dataclass(frozen=True)
class MatrixNet:
    """A network and the shapes of what it takes."""

    build: Callable[[], nn.Module]
    inputs: Mapping[str, tuple[int, ...]]

    def network(self) -> nn.Module:
        """The network with its seeded weights, in eval mode."""
        torch.manual_seed(0)
        return self.build().eval()

    def data(self, samples: int, seed: int) -> Arrays:
        """Smooth pictures and signals, about -1 to 1."""
        return {name: smooth((samples, *shape), seed + i) for i, (name, shape) in enumerate(self.inputs.items())}


def smooth(shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    """Noise of several scales along the last axes."""
    random = np.random.default_rng(seed)
    total = np.zeros(shape)
    for factor in (1, 2, 4, 8):
        sizes = [size if axis < 2 else -(-size // factor) for axis, size in enumerate(shape)]
        part = random.standard_normal(sizes)
        for axis in range(2, len(shape)):
            part = part.repeat(factor, axis=axis).take(range(shape[axis]), axis=axis)
        total += part * factor**0.5
    return (total / 4).clip(-1.5, 1.5).astype(np.float32)


IMAGE: Final = {"image": (3, SIZE, SIZE)}
SIGNAL: Final = {"signal": (32, 48)}
NETS: Final[dict[str, MatrixNet]] = {
    "PAN": MatrixNet(Pan, IMAGE),
    "PAN, bilinear": MatrixNet(lambda: Pan(mode="bilinear"), IMAGE),
    "PAN, ReLU": MatrixNet(lambda: Pan(functional.relu), IMAGE),
    "BiFPN": MatrixNet(BiFpn, IMAGE),
    "FPN": MatrixNet(Fpn, IMAGE),
    "HRNet": MatrixNet(HrNet, IMAGE),
    "UNet, nearest": MatrixNet(lambda: UNet("nearest"), IMAGE),
    "UNet, bilinear": MatrixNet(lambda: UNet("bilinear"), IMAGE),
    "UNet, transposed": MatrixNet(lambda: UNet("transposed"), IMAGE),
    "SPPF": MatrixNet(Sppf, IMAGE),
    "Inception, ReLU": MatrixNet(lambda: Inception(functional.relu), IMAGE),
    "Inception, SiLU": MatrixNet(lambda: Inception(functional.silu), IMAGE),
    "Inception, GELU": MatrixNet(lambda: Inception(functional.gelu), IMAGE),
    "Inception, LeakyReLU": MatrixNet(lambda: Inception(functional.leaky_relu), IMAGE),
    "Inception, h-swish": MatrixNet(lambda: Inception(functional.hardswish), IMAGE),
    "DenseNet": MatrixNet(DenseNet, IMAGE),
    "Res2Net": MatrixNet(Res2Net, IMAGE),
    "ShuffleNet": MatrixNet(ShuffleNet, IMAGE),
    "GhostNet": MatrixNet(GhostNet, IMAGE),
    "MobileNetV2": MatrixNet(lambda: MobileNet(nn.ReLU6(), squeeze=False), IMAGE),
    "MobileNetV3": MatrixNet(lambda: MobileNet(nn.Hardswish(), squeeze=True), IMAGE),
    "EfficientNet-lite": MatrixNet(lambda: MobileNet(nn.SiLU(), squeeze=False), IMAGE),
    "SSD heads": MatrixNet(Ssd, IMAGE),
    "DBNet": MatrixNet(DbNet, IMAGE),
    "ASPP": MatrixNet(Aspp, IMAGE),
    "PixelShuffle": MatrixNet(PixelShuffle, IMAGE),
    "Siamese": MatrixNet(Siamese, {**IMAGE, "other": (3, SIZE, SIZE)}),
    "ConvNeXt block": MatrixNet(ConvNext, IMAGE),
    "ViT": MatrixNet(Vit, IMAGE),
    "Swin": MatrixNet(lambda: Vit(window=4), IMAGE),
    "Conformer": MatrixNet(Conformer, SIGNAL),
    "CRNN": MatrixNet(Crnn, IMAGE),
    "LSTM": MatrixNet(lambda: Recurrent(nn.LSTM), SIGNAL),
    "GRU": MatrixNet(lambda: Recurrent(nn.GRU), SIGNAL),
    "TCN": MatrixNet(Tcn, SIGNAL),
}
