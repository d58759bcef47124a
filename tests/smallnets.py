"""Small real networks, and the inputs that show what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class OneLayer:
    """A network of one layer, and inputs on which its outputs are its weights.

    `as_stored` brings the outputs on `identity` into the order of the file: [output channels, weights per channel].
    """

    network: nn.Module
    identity: Floats

    def as_stored(self, outputs: npt.NDArray[Any]) -> Floats:
        layer = self.network[0]  # type: ignore[index]
        if isinstance(layer, nn.ConvTranspose2d):
            return outputs.reshape(layer.out_channels, -1)  # MNN keeps them input channel first, as PyTorch does
        return outputs.reshape(len(self.identity), -1).T


def one_layer(kind: str, seed: int = 0, zeros: float = 0.0) -> OneLayer:
    """`kind`: linear, conv, depthwise or deconv. Each channel's largest weight is 1 in size, as full int8 likes it.

    `zeros` is the share of the weights that are 0.
    """
    torch.manual_seed(seed)
    layer: nn.Module
    identity: npt.NDArray[np.float64]
    if kind == "linear":
        layer, identity = nn.Linear(64, 24, bias=False), np.eye(64)
    elif kind == "conv":
        layer, identity = nn.Conv2d(32, 6, 3, bias=False), np.eye(32 * 9).reshape(-1, 32, 3, 3)
    elif kind == "depthwise":
        layer = nn.Conv2d(16, 16, 3, groups=16, bias=False)
        identity = np.repeat(np.eye(9).reshape(9, 1, 3, 3), 16, 1)
    else:
        layer, identity = nn.ConvTranspose2d(8, 5, 3, bias=False), np.eye(8).reshape(8, 8, 1, 1)
    with torch.no_grad():
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        weight.mul_(torch.rand_like(weight) >= zeros)
        weight.div_(weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True).clamp_min(1e-3))
    return OneLayer(nn.Sequential(layer).eval(), identity.astype(np.float32))


class PoolNet(nn.Module):
    """Conv-MaxPool-Conv-Linear without any ReLU, so that what is pooled has both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.pool(self.first(x)))
        out: torch.Tensor = self.head(x.flatten(1))
        return out


class Words(nn.Module):
    """An embedding (a constant table in MNN), a LayerNorm and an LSTM (a While body in MNN) before a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 12)
        self.norm = nn.LayerNorm(12)
        self.rnn = nn.LSTM(12, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(self.norm(self.table(tokens)))
        out: torch.Tensor = self.head(states[:, -1])
        return out


class TwoWays(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(2, 4, 3)
        self.mixed = nn.Linear(4 * 6 * 6 + 5, 7)

    def forward(self, image: torch.Tensor, extra: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
        seen = functional.relu(self.image(image)) * scale
        return self.mixed(torch.cat([seen.flatten(1), extra], 1)), seen


class Restless(nn.Module):
    """What differs between train and eval mode, and what is easily counted twice."""

    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.p = p
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.spatial = nn.Dropout2d(p)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.alias = self.shared
        self.attention = nn.MultiheadAttention(8, 2, dropout=p, batch_first=True)
        self.drop = nn.Dropout(p, inplace=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.spatial(self.act(self.norm(self.conv(x))))
        x = self.act(self.alias(self.act(self.shared(x))))
        x = functional.dropout(x, self.p, self.training) * 2
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = tokens * torch.relu_(functional.dropout(tokens, self.p, self.training) + 1)
        out: torch.Tensor = self.head(self.drop(tokens.mean(1)))
        return out


class Residual(nn.Module):
    """A sum with a fused ReLU before a convolution, and an average pool before a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.pool = nn.AvgPool2d(4)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = torch.relu(x + self.second(x))
        x = torch.sigmoid(self.gate(x)) * x
        out: torch.Tensor = self.head(self.pool(x).flatten(1))
        return out


class Loose(nn.Module):
    """BatchNorms of three kinds: folded into the layer before it, after a ReLU, and first of all."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.BatchNorm2d(1)
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.folded = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.loose = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 64, 5)
        for norm in (self.entry, self.folded, self.loose):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.uniform_(norm.bias, -1.0, 1.0)
            nn.init.uniform_(_tensor(norm.running_mean), -0.5, 0.5)
            nn.init.uniform_(_tensor(norm.running_var), 0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.folded(self.first(self.entry(x))))
        out: torch.Tensor = self.head(self.second(self.loose(x)).flatten(1))
        return out


def _tensor(found: torch.Tensor | None) -> torch.Tensor:
    assert found is not None
    return found
