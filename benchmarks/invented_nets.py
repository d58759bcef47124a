"""Networks that no matrix of this project has: necks, attention with pooling, UNet variants, gated units, dual paths.

They hold out from the networks that rules were written for: what they show was not looked at before.
"""

from __future__ import annotations

from typing import Final

import torch
from matrix_nets import IMAGE, MatrixNet, conv, norm, pooled, up
from torch import Tensor, nn
from torch.nn import functional


class Stem(nn.Module):
    """Three scales: 16x16 with 12 channels, 8x8 with 20, 4x4 with 28; the deepest is smallest in magnitude."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = conv(3, 12, 3, 2), conv(12, 20, 3, 2), conv(20, 28, 3, 2, gain=0.4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of three scales."""
        first = functional.silu(self.first(image))
        second = functional.silu(self.second(first))
        return first, second, functional.silu(self.third(second))


class GatherNeck(nn.Module):
    """All scales are brought to the middle one by pooling and enlarging, joined, and handed back to each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fuse = Stem(), conv(60, 24, 1)
        self.fine, self.coarse = conv(36, 8, 1), conv(52, 8, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """A fine and a coarse map."""
        first, second, third = self.stem(image)
        joined = torch.cat([functional.avg_pool2d(first, 2), second, up(third)], 1)
        fused = functional.silu(self.fuse(joined))
        return self.fine(torch.cat([up(fused), first], 1)), self.coarse(
            torch.cat([functional.max_pool2d(fused, 2), third], 1)
        )


class RepeatedNeck(nn.Module):
    """The deepest feature is enlarged twice, and goes into three joined tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.low, self.middle, self.high = conv(28, 8, 1), conv(48, 8, 1, gain=3.0), conv(40, 8, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three maps."""
        first, second, third = self.stem(image)
        once = up(third)
        return self.low(third), self.middle(torch.cat([once, second], 1)), self.high(torch.cat([up(once), first], 1))


class PooledAttention(nn.Module):
    """Keys and values of a pooled map, queries of the whole one, as in PVT."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.query, self.pair, self.out = (
            conv(3, 16, 3, 2),
            conv(16, 16, 1),
            conv(16, 32, 1),
            conv(16, 8, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        features = functional.gelu(self.embed(image))
        small = functional.max_pool2d(features, 4)
        keys, values = self.pair(small).flatten(2).chunk(2, 1)
        weights = torch.softmax(self.query(features).flatten(2).transpose(1, 2) @ keys / 4, -1)
        mixed = (weights @ values.transpose(1, 2)).transpose(1, 2).reshape(features.shape)
        result: Tensor = self.out(mixed + features)
        return result


class ChannelAndSpace(nn.Module):
    """Attention over channels by two pools, then over places by a mean and a maximum, as in CBAM."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite = conv(3, 16, 3, 2), conv(16, 4, 1), conv(4, 16, 1)
        self.place, self.head = conv(2, 1, 5), conv(16, 8, 3, 2)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        features = functional.relu(self.stem(image))
        pools = (functional.adaptive_avg_pool2d(features, 1), functional.adaptive_max_pool2d(features, 1))
        mean, largest = (self.excite(functional.relu(self.squeeze(pool))) for pool in pools)
        features = features * torch.sigmoid(mean + largest)
        planes = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        result: Tensor = self.head(features * torch.sigmoid(self.place(planes)))
        return result


class NestedUNet(nn.Module):
    """A UNet whose skips are fused on the way, as in UNet++."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.inner, self.middle, self.outer = conv(48, 20), conv(32, 12), conv(44, 12)
        self.head = conv(12, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        first, second, third = self.stem(image)
        middle = functional.relu(self.middle(torch.cat([first, up(second)], 1)))
        inner = functional.relu(self.inner(torch.cat([second, up(third)], 1)))
        result: Tensor = self.head(functional.relu(self.outer(torch.cat([first, middle, up(inner)], 1))))
        return result


class PooledUNet(nn.Module):
    """A UNet that pools instead of striding, with sums for skips and a bilinear way up."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.deep = conv(3, 16), conv(16, 16), conv(16, 16, gain=0.5)
        self.back, self.head = conv(16, 16), conv(16, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        first = functional.leaky_relu(self.first(image))
        second = functional.leaky_relu(self.second(functional.max_pool2d(first, 2)))
        deep = functional.leaky_relu(self.deep(functional.max_pool2d(second, 2)))
        back = functional.leaky_relu(self.back(up(deep, "bilinear") + second))
        result: Tensor = self.head(up(back, "bilinear") + first)
        return result


class GatedUnit(nn.Module):
    """Half of the channels gate the other half, twice, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second, self.head = conv(3, 16, 3, 2), conv(16, 32), conv(16, 32), conv(16, 6, 1)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        features = self.stem(image)
        for layer in (self.first, self.second):
            content, gate = layer(features).chunk(2, 1)
            features = features + content * torch.sigmoid(gate)
        result: Tensor = self.head(features)
        return result


class DualPath(nn.Module):
    """Part of each block's output is added to a residual path, part is joined to a dense one, as in DPN."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 24, 3, 2)
        self.blocks = nn.ModuleList([conv(24 + 4 * number, 20) for number in range(3)])
        self.head = conv(36, 6, 1)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        features = functional.relu(self.stem(image))
        residual, dense = features[:, :16], features[:, 16:]
        for block in self.blocks:
            made = functional.relu(block(torch.cat([residual, dense], 1)))
            residual, dense = residual + made[:, :16], torch.cat([dense, made[:, 16:]], 1)
        result: Tensor = self.head(torch.cat([residual, dense], 1))
        return result


class TwoStreams(nn.Module):
    """A detailed and a pooled stream exchange features, as in BiSeNet; pools of two sizes are joined at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.detail, self.context, self.to_detail, self.to_context = (
            conv(3, 16, 3, 2),
            conv(3, 16, 3, 4),
            conv(16, 16, 1),
            conv(16, 16),
        )
        self.head = conv(48, 6, 1)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        detail, context = functional.hardswish(self.detail(image)), functional.hardswish(self.context(image))
        mixed = detail * torch.sigmoid(up(self.to_detail(context)))
        deep = functional.avg_pool2d(self.to_context(detail), 2) + context
        pools = [functional.max_pool2d(mixed, 3, 1, 1), mixed, up(deep)]
        result: Tensor = self.head(torch.cat(pools, 1))
        return result


class Cascade(nn.Module):
    """Splits of the channels go through ever more layers, are exchanged and joined, then halved by two pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 24, 3, 2)
        self.layers = nn.ModuleList([conv(8, 8), conv(8, 8), conv(8, 8)])
        self.norm, self.head = norm(24), conv(48, 6, 1)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        parts = list(functional.relu(self.stem(image)).chunk(3, 1))
        for number, layer in enumerate(self.layers):
            parts[number] = layer(parts[number] + parts[number - 1] if number else parts[number])
        joined = functional.relu(self.norm(torch.cat(parts[::-1], 1)))
        result: Tensor = self.head(torch.cat([functional.max_pool2d(joined, 2), functional.avg_pool2d(joined, 2)], 1))
        return result


class Anchored(nn.Module):
    """One shared head on three scales, flattened and joined, beside a score of the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.laterals = nn.ModuleList([conv(channels, 16, 1) for channels in (12, 20, 28)])
        self.head, self.score = conv(16, 6), nn.Linear(28, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes, and scores."""
        features = self.stem(image)
        boxes = [self.head(lateral(scale)).flatten(2) for lateral, scale in zip(self.laterals, features, strict=True)]
        return torch.cat(boxes, 2), self.score(pooled(features[2]))


INVENTED: Final[dict[str, MatrixNet]] = {
    "gather neck": MatrixNet(GatherNeck, IMAGE),
    "repeated neck": MatrixNet(RepeatedNeck, IMAGE),
    "pooled attention": MatrixNet(PooledAttention, IMAGE),
    "channel and space": MatrixNet(ChannelAndSpace, IMAGE),
    "nested UNet": MatrixNet(NestedUNet, IMAGE),
    "pooled UNet": MatrixNet(PooledUNet, IMAGE),
    "gated unit": MatrixNet(GatedUnit, IMAGE),
    "dual path": MatrixNet(DualPath, IMAGE),
    "two streams": MatrixNet(TwoStreams, IMAGE),
    "cascade": MatrixNet(Cascade, IMAGE),
    "anchored": MatrixNet(Anchored, IMAGE),
}
