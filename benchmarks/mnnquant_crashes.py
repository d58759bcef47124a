"""Whether the operator that is named for a crash of mnnquant's KL (MNQ201) is right, on one operator at a time.

    python benchmarks/mnnquant_crashes.py [OPERATOR ...] [--fixes]

Each operator stands between two convolutions, and after the only one. The tool runs on both; a crash must be named, and
nothing may be named for a model that the tool quantizes. `--fixes` also makes the recipes that the finding proposes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.steps import Unusable
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.quantize.mnnquant_crash import crashing_operator
from pytest_mnnquant.sources.spec import Spec

Step = Callable[[Tensor], Tensor]


def up(features: Tensor, mode: str = "bilinear", factor: float = 2.0, **options: Any) -> Tensor:
    """Another size."""
    return functional.interpolate(features, scale_factor=factor, mode=mode, **options)


OPERATORS: Final[dict[str, Step]] = {
    "bilinear": lambda y: up(y),
    "bilinear align": lambda y: up(y, align_corners=True),
    "nearest": lambda y: up(y, "nearest"),
    "bicubic": lambda y: up(y, "bicubic"),
    "bilinear down": lambda y: up(y, "bilinear", 0.5),
    "linear1d": lambda y: up(y.flatten(2), "linear").reshape(len(y), 8, -1, 8),
    "up3d": lambda y: functional.interpolate(y[:, None], scale_factor=(1, 2, 2), mode="nearest")[:, 0],
    "up relu": lambda y: functional.relu(up(y)),
    "up sigmoid": lambda y: torch.sigmoid(up(y)),
    "up add": lambda y: up(y) + 1.5,
    "up cat": lambda y: torch.cat([up(y), up(y, "nearest")], 1)[:, ::2],
    "up cat skip": lambda y: torch.cat([up(y), up(y) * 2], 1)[:, ::2],
    "up pool": lambda y: functional.max_pool2d(up(y), 2),
    "up avgpool": lambda y: functional.avg_pool2d(up(y), 2),
    "up softmax": lambda y: up(y).softmax(1),
    "up slice": lambda y: up(y)[:, :, 1:],
    "up perm": lambda y: up(y).transpose(2, 3),
    "logsoftmax": lambda y: y.log_softmax(1),
    "softmax hw": lambda y: y.softmax(3),
    "celu": functional.celu,
    "elu": functional.elu,
    "selu": functional.selu,
    "softplus": functional.softplus,
    "mish": functional.mish,
    "softsign": functional.softsign,
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "hardtanh": functional.hardtanh,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "leaky": functional.leaky_relu,
    "clamp": lambda y: y.clamp(-0.3, 0.4),
    "threshold": lambda y: functional.threshold(y, 0.1, 0.0),
    "var": lambda y: y - y.var([2, 3], keepdim=True),
    "mean hw": lambda y: y - y.mean([2, 3], keepdim=True),
    "mean c": lambda y: y - y.mean(1, keepdim=True),
    "mean w": lambda y: y - y.mean(3, keepdim=True),
    "max hw": lambda y: y - y.amax([2, 3], keepdim=True),
    "prod c": lambda y: y - y.prod(1, keepdim=True),
    "l2norm": lambda y: functional.normalize(y, dim=1),
    "l1norm": lambda y: y / (y.norm(p=1, dim=1, keepdim=True) + 1),
    "cosine": lambda y: y * functional.cosine_similarity(y, y + 1, dim=1)[:, None],
    "logsumexp": lambda y: y - y.logsumexp(1, keepdim=True),
    "apool22": lambda y: functional.adaptive_avg_pool2d(y, 2),
    "amax22": lambda y: functional.adaptive_max_pool2d(y, 2),
    "gap": lambda y: functional.adaptive_avg_pool2d(y, 1),
    "gmp": lambda y: functional.adaptive_max_pool2d(y, 1),
    "avg1d": lambda y: functional.avg_pool1d(y.flatten(2), 2).reshape(len(y), 8, -1, 8),
    "max1d": lambda y: functional.max_pool1d(y.flatten(2), 2).reshape(len(y), 8, -1, 8),
    "avg3d": lambda y: functional.avg_pool3d(y[:, None], (1, 2, 2))[:, 0],
    "max3d": lambda y: functional.max_pool3d(y[:, None], (1, 2, 2))[:, 0],
    "lp": lambda y: functional.lp_pool2d(y.abs(), 2, 2),
    "cumsum": lambda y: y.cumsum(2),
    "pixelunshuffle": lambda y: functional.pixel_unshuffle(y, 2)[:, :8],
    "reflect": lambda y: functional.pad(y, (1, 1, 1, 1), mode="reflect"),
    "replicate": lambda y: functional.pad(y, (1, 1, 1, 1), mode="replicate"),
    "roll": lambda y: y.roll(1, 3),
    "repeat": lambda y: y.repeat(1, 1, 2, 1),
    "flip": lambda y: y.flip(2),
    "glu": lambda y: torch.cat([functional.glu(y, 1)] * 2, 1),
    "matmul": lambda y: y @ y.transpose(2, 3),
    "einsum": lambda y: torch.einsum("bchw,bdhw->bcd", y, y)[..., None],
    "layernorm": lambda y: functional.layer_norm(y, y.shape[3:]),
    "groupnorm": lambda y: functional.group_norm(y, 2),
    "instnorm": functional.instance_norm,
    "rms": lambda y: functional.rms_norm(y, (8,)),
    "gridsample": lambda y: functional.grid_sample(y, torch.tanh(y[:, :2].permute(0, 2, 3, 1)), align_corners=False),
    "where": lambda y: torch.where(y > 0, y, y * 0.5),
    "abs": torch.abs,
    "sqrt": lambda y: y.abs().sqrt(),
    "pow": lambda y: y**2,
    "exp": torch.exp,
    "max2": lambda y: torch.maximum(y, -y * 0.3),
    "argmax": lambda y: y * y.argmax(1, keepdim=True).float(),
    "topk": lambda y: y.topk(8, 3)[0],
    "sort": lambda y: y.sort(3)[0],
    "gather": lambda y: y[:, [1, 0, 3, 2, 5, 4, 7, 6]],
    "onehot": lambda y: y.argmax(1).float()[:, None] * y,
    "tril": torch.tril,
    "stack": lambda y: torch.stack([y, y * 2], 2).flatten(1, 2)[:, :8],
    "round": torch.round,
    "floor": torch.floor,
    "sign": torch.sign,
    "mod": lambda y: torch.remainder(y, 1.0),
    "unfold": lambda y: functional.fold(functional.unfold(y, 2, stride=2), (8, 8), 2, stride=2),
    "unfold only": lambda y: functional.unfold(y, 2, stride=2)[:, :8, :, None],
    "crop": lambda y: y[:, :, 2:-2, 2:-2],
    "chanshuffle": lambda y: y.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8),
}


class After(nn.Module):
    """A convolution and the operator."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.first, self.step = nn.Conv2d(3, 8, 3, padding=1, stride=2), step

    def forward(self, image: Tensor) -> Tensor:
        """The operator's output."""
        return self.step(self.first(image))


class Between(After):
    """A convolution, the operator, and another convolution."""

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        result: Tensor = self.last(super().forward(image))
        return result


def is_made(gate: SourceUnderTest, recipe: str) -> bool:
    """Whether a recipe gives a file."""
    try:
        return bool(variant_under_test(gate, recipe, "eval" if recipe == "int8" else None).model.ops)
    except Unusable as error:
        if error.finding.code != "MNQ201":
            raise
        return False


def judgement(step: Step, form: type[After], folder: Path, *, fixes: bool) -> str:
    """`ok`, or how the name is wrong."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)
    values = FixtureValues(form(step).eval(), {"image": images}, {"image": images})
    gate = SourceUnderTest(
        ModelSettings("net", "net", folder), Spec("net", "net"), Store(folder), lambda _: None, values
    )
    try:
        named, made = crashing_operator(gate.prepared.model), is_made(gate, "mnnquant-kl")
        if (named is None) != made:
            return "FALSE ALARM" if made else "UNNAMED"
        if fixes and not made and not all(is_made(gate, recipe) for recipe in ("mnnquant-ema", "int8")):
            return "NO FIX"
    except Unusable:
        return "not exported"
    return "quantized" if made else f"crash, named {named.kind if named else ''}"


def main() -> None:
    """Print a line per model, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*")
    parser.add_argument("--fixes", action="store_true")
    chosen = parser.parse_args()
    counts: Counter[str] = Counter()
    for name in chosen.operators or OPERATORS:
        for form in (After, Between):
            with tempfile.TemporaryDirectory(prefix="crashes-") as folder:
                word = judgement(OPERATORS[name], form, Path(folder), fixes=chosen.fixes)
            counts[word.split(",")[0]] += 1
            print(f"{word:24} {name}, {form.__name__.lower()}", flush=True)
    print(", ".join(f"{count} {word}" for word, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
