"""Networks of many kinds, trained on the digits of the fixtures, to quantize in every way.

Four are the fixture models with their own weights; the others are trained in a few seconds each, seeded, and kept in a
folder of the caller's: `ARCHITECTURES["gru"].trained(folder)`. Without training, `build()` gives seeded random weights.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.append(str(Path(__file__).resolve().parent.parent / "fixtures"))
import digits_cnn
import digits_data
import garment_classifier
import mobile_net
import tiny_transformer
from digits_data import Arrays, Images, Labels

CALIBRATION: Final = 320
_BATCH: Final = 64
_GREYS: Final = 17
_PAIRS: Final = _GREYS * _GREYS


class Mlp(nn.Module):
    """Linear layers only; the first two have 65,536 weights and more."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Flatten(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits


class Conv1d(nn.Module):
    """The rows of an image as channels of a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(16, 64, 5, padding=2, bias=False), nn.BatchNorm1d(64), nn.ReLU()),
            *(nn.Conv1d(64, 64, 3, padding=2, dilation=2), nn.ReLU(), nn.MaxPool1d(2)),
            *(nn.Conv1d(64, 64, 3, padding=1, groups=4), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x)
        return logits


class Recurrent(nn.Module):
    """The rows of an image as steps of a sequence."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.layer = kind(16, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.layer(x)[0][:, -1])
        return logits


class TwoInputs(nn.Module):
    """An image and a vector (its sums of rows and columns), joined before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1)),
            *(nn.ReLU(), nn.Flatten()),
        )
        self.vector = nn.Sequential(nn.Linear(32, 48), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(32 * 16 + 48, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, image: Tensor, sums: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(torch.cat([self.image(image), self.vector(sums)], dim=1))
        return logits


class Segmentation(nn.Module):
    """Says of each pixel which digit it belongs to, or none: down, up with ConvTranspose2d, and a last Conv2d."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            *(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 5, padding=2), nn.ReLU()),
        )
        self.up = nn.Sequential(
            *(nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(32, 24, 2, stride=2), nn.ReLU()),
        )
        self.last = nn.Conv2d(24, 11, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each pixel."""
        logits: Tensor = self.last(self.up(self.down(x)))
        return logits


class Cardinal(nn.Module):
    """A residual block with a grouped convolution, as in ResNeXt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features in the shape of the input."""
        return torch.relu(x + self.layers(x))


class Grouped(nn.Module):
    """A small ResNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(
            *(Cardinal(32), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(), Cardinal(64))
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.blocks(self.stem(x)))
        return logits


class Shared(nn.Module):
    """A convolution and a Linear that are called more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.twice = nn.Conv2d(32, 32, 3, padding=1)
        self.flat = nn.Sequential(nn.Flatten(), nn.Linear(512, 64))
        self.thrice = nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.relu(self.stem(x))
        x = functional.max_pool2d(torch.relu(self.twice(torch.relu(self.twice(x)))), 2)
        x = torch.relu(self.flat(x))
        for _ in range(3):
            x = torch.relu(self.thrice(x))
        logits: Tensor = self.head(x)
        return logits


class RawWeights(nn.Module):
    """Weights that belong to no layer: a matrix product, an einsum, and functional calls."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(16, 64) / 4)
        self.mixed = nn.Parameter(torch.randn(16, 64, 96) / 32)
        self.table = nn.Parameter(torch.randn(64, 96) / 8)
        self.bias = nn.Parameter(torch.zeros(64))
        self.head = nn.Parameter(torch.randn(64, 10) / 8)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.relu(x @ self.rows)
        x = torch.relu(torch.einsum("nrc,rcd->nd", x, self.mixed))
        return torch.relu(functional.linear(x, self.table, self.bias)) @ self.head


class Attention(nn.Module):
    """Tokens through nn.MultiheadAttention and a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 64)
        self.position = nn.Parameter(0.1 * torch.randn(1, 16, 64))
        self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.embed(x) + self.position
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        x = x + self.feed(self.norm2(x))
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


class TiedEmbedding(nn.Module):
    """A table of tokens (pairs of grey values, then the ten digits) that is also the weight of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(_PAIRS + 10, 32)
        self.hidden = nn.Sequential(nn.Dropout(0.5), nn.Linear(32 * 32, 96))
        self.out = nn.Linear(96, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        """The logit of each token of the vocabulary."""
        x = torch.relu(self.hidden(self.table(tokens).flatten(1)))
        return functional.linear(self.out(x), self.table.weight)


def _image(images: Images) -> Arrays:
    return {"x": images}


def _rows(images: Images) -> Arrays:
    return {"x": images[:, 0]}


def _image_and_sums(images: Images) -> Arrays:
    sums = np.concatenate([images[:, 0].sum(1), images[:, 0].sum(2)], axis=1)
    return {"image": images, "sums": sums / np.float32(images.shape[-1])}


def _tokens(images: Images) -> Arrays:
    greys = np.rint(images * (_GREYS - 1)).astype(np.int64).reshape(len(images), -1, 2)
    return {"tokens": greys[..., 0] * _GREYS + greys[..., 1]}


def _digit(_images: Images, labels: Labels) -> Labels:
    return labels


def _digit_of_each_pixel(images: Images, labels: Labels) -> Labels:
    nothing = np.int64(10)
    return np.where(images[:, 0] > 0.4, labels[:, np.newaxis, np.newaxis], nothing)


def _token_of_digit(_images: Images, labels: Labels) -> Labels:
    return labels + _PAIRS


@dataclass(frozen=True)
class Architecture:
    """A network, and how the digits become its inputs and labels. `weights`: it comes trained; `text`: what it is."""

    network: Callable[[], nn.Module]
    text: str = ""
    size: int = 16
    inputs: Callable[[Images], Arrays] = _image
    labels: Callable[[Images, Labels], Labels] = _digit
    weights: Path | None = None
    epochs: int = 25

    @property
    def about(self) -> str:
        """What the network is."""
        return (self.text or self.network.__doc__ or "").strip().splitlines()[0]

    def build(self) -> nn.Module:
        """The network in eval mode, with the same random weights each time."""
        torch.manual_seed(0)
        return self.network().eval()

    def trained(self, folder: Path) -> nn.Module:
        """The trained network in eval mode; weights trained here are kept in `folder`."""
        network = self.build()
        if self.weights is not None:
            from safetensors.torch import load_file

            network.load_state_dict(load_file(self.weights))
            return network
        kind = type(network)
        of = hashlib.sha256(f"{inspect.getsource(kind)}{network}{self.epochs}{self.size}".encode()).hexdigest()[:12]
        kept = folder / f"{kind.__name__}-{of}.pt"
        if kept.is_file():
            network.load_state_dict(torch.load(kept))
            return network
        self._train(network)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), kept)
        return network.eval()

    def calibration(self, count: int = CALIBRATION) -> Arrays:
        """Inputs that the network was trained on."""
        return self.inputs(digits_data.train(self.size)[0][:count])

    def evaluation(self) -> Arrays:
        """Held-out inputs, and their labels where a sample has one."""
        _, labels = self._held_out()
        arrays = self.inputs(digits_data.evaluation(self.size)["x"])
        return {**arrays, "labels": labels} if labels.ndim == 1 else arrays

    def top1(self, logits: npt.NDArray[Any]) -> float:
        """Share of the held-out labels (of pixels, in a segmentation) with the highest logit."""
        _, labels = self._held_out()
        return float((logits.argmax(1) == labels).mean())

    def _held_out(self) -> tuple[Images, Labels]:
        part = digits_data.evaluation(self.size)
        return part["x"], self.labels(part["x"], part["labels"])

    def _train(self, network: nn.Module) -> None:
        torch.manual_seed(0)
        images, digits = digits_data.train(self.size)
        inputs = [torch.from_numpy(array) for array in self.inputs(images).values()]
        labels = torch.from_numpy(self.labels(images, digits))
        steps = self.epochs * (len(images) // _BATCH)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps, pct_start=0.2)
        network.train()
        shuffled = torch.randperm(0)
        for _ in range(steps):
            if len(shuffled) < _BATCH:
                shuffled = torch.randperm(len(images))
            chosen, shuffled = shuffled[:_BATCH], shuffled[_BATCH:]
            loss = functional.cross_entropy(network(*(tensor[chosen] for tensor in inputs)), labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


def _fixture(module: Any, network: Callable[[], nn.Module]) -> Architecture:
    return Architecture(network, module.__doc__, module.SIZE, weights=module.WEIGHTS)


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "cnn": _fixture(digits_cnn, digits_cnn.DigitsCNN),
    "mobile_net": _fixture(mobile_net, mobile_net.MobileNet),
    "lenet": _fixture(garment_classifier, garment_classifier.GarmentClassifier),
    "transformer": _fixture(tiny_transformer, tiny_transformer.TinyTransformer),
    "mlp": Architecture(Mlp),
    "conv1d": Architecture(Conv1d, inputs=_rows),
    "lstm": Architecture(lambda: Recurrent(nn.LSTM), "nn.LSTM over the rows of an image.", inputs=_rows, epochs=40),
    "gru": Architecture(lambda: Recurrent(nn.GRU), "nn.GRU over the rows of an image.", inputs=_rows, epochs=40),
    "two_inputs": Architecture(TwoInputs, inputs=_image_and_sums),
    "segmentation": Architecture(Segmentation, labels=_digit_of_each_pixel),
    "grouped": Architecture(Grouped, epochs=12),
    "shared": Architecture(Shared),
    "raw_weights": Architecture(RawWeights, inputs=_rows),
    "attention": Architecture(Attention, inputs=_rows, epochs=40),
    "tied_embedding": Architecture(TiedEmbedding, size=8, inputs=_tokens, labels=_token_of_digit),
}
