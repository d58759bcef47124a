"""Whether MNQ613 names exactly the columns of int8 resizes that ARM computes wrongly.

    python benchmarks/resize_on_arm.py

A convolution, a resize of a width to another, and a 1x1 convolution, quantized by recipe `int8`. Each output column on
the emulated processor is compared with this host's. A column is wrong if the noise is above a tenth of the signal.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matrix_nets import smooth
from torch import Tensor, nn
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import Spec
from pytest_mnnquant.targets.emulator import NAME, Emulator, cache_folder

CPU: Final = "cortex-a76"
TIMEOUT: Final = 300.0
HALF: Final[dict[str, Any]] = {"mode": "bilinear"}
ALIGNED: Final[dict[str, Any]] = {"mode": "bilinear", "align_corners": True}
#: Width of the input, of the output, and the form.
CASES: Final = (
    *((given, made, HALF) for given, made in ((8, 16), (7, 14), (13, 26), (9, 33), (8, 24), (8, 32), (16, 8), (8, 13))),
    *((given, made, ALIGNED) for given, made in ((8, 16), (9, 17), (8, 64))),
    *((given, made, {"mode": mode}) for given, made in ((7, 14), (8, 24)) for mode in ("nearest", "bicubic")),
)


class Resized(nn.Module):
    """Two convolutions around a resize."""

    def __init__(self, width: int, form: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.width, self.form = width, form

    def forward(self, image: Tensor) -> Tensor:
        """A map."""
        size = (image.shape[2] * 2, self.width)
        result: Tensor = self.last(functional.interpolate(functional.relu(self.first(image)), size, **self.form))
        return result


def columns(given: int, made: int, form: dict[str, Any], folder: Path) -> tuple[int, int]:
    """The number of columns that are wrong on ARM, and the number that the file says."""
    images = smooth((16, 3, 8, given), 1)
    values = FixtureValues(Resized(made, form).eval(), {"image": images}, {"image": images})
    settings = ModelSettings("net", "net", folder, timeout=TIMEOUT)
    gate = SourceUnderTest(settings, Spec("net", "net"), Store(folder), lambda _: None, values)
    variant, few = variant_under_test(gate, "int8", "eval"), {"image": images[:2]}
    batched = gate.prepared.batched
    emulated = Emulator(folder=cache_folder() / NAME).target(CPU).send
    (host,) = run(variant.model, few, RunOptions(TIMEOUT, batched=batched)).outputs.values()
    (arm,) = run(variant.model, few, RunOptions(TIMEOUT, batched=batched, send=emulated)).outputs.values()
    noise = ((host - arm) ** 2).sum((0, 1, 2)) / (host**2).sum((0, 1, 2))
    return int(np.count_nonzero(noise > 0.1)), sum(resize.columns for resize in variant.runs.int8_faults.resizes)


def main() -> None:
    """Print a line per resize."""
    wrong = 0
    for given, made, form in CASES:
        with tempfile.TemporaryDirectory(prefix="resize-") as folder:
            seen, said = columns(given, made, form, Path(folder))
        wrong += seen != said
        print(f"{given} to {made}, {form}: {seen} columns wrong on ARM, {said} by the file", flush=True)
    print(f"{wrong} of {len(CASES)} resizes judged wrongly")


if __name__ == "__main__":
    main()
