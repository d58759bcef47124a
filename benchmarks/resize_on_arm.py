"""Whether MNQ613 names exactly the columns of int8 resizes that ARM computes wrongly.

    python benchmarks/resize_on_arm.py

A convolution, a resize of a width to another, and a 1x1 convolution, quantized by recipe `int8`, which keeps the resize
float, and again with an int8 resize, as other tools write it. Each output column on the emulated processor is compared
with this host's. A column is wrong if the noise is above a tenth of the signal.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matrix_nets import Arrays, smooth
from torch import Tensor, nn
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.quants import write_with_quants
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


def judged(network: Resized, images: Arrays, folder: Path, quantized: Path | None = None) -> VariantUnderTest:
    """The variant that recipe `int8` makes, or a finished file."""
    settings = ModelSettings(
        "net", "net", folder, quantized=None if quantized is None else str(quantized), timeout=TIMEOUT
    )
    values = FixtureValues(network.eval(), images, images)
    return variant_under_test(
        SourceUnderTest(settings, Spec("net", "net"), Store(folder), lambda _: None, values), "int8", "eval"
    )


def with_int8_resize(model: Model, path: Path) -> Path:
    """A copy of the file that runs the resize in int8."""
    quants = dict(model.tensor_quants)
    resize = next(op for op in model.ops if op.kind == "Interp")
    if quants[resize.inputs[0]].data_type != "int8":
        original = next(op for op in model.ops if resize.inputs[0] in op.outputs).inputs[0]
        quants |= dict.fromkeys((resize.inputs[0], *resize.outputs), quants[original])
    write_with_quants(model, quants, path)
    return path


def columns(case: VariantUnderTest, images: Arrays) -> tuple[int, int]:
    """The number of columns that are wrong on ARM, and the number that the file says."""
    few = {"image": images["image"][:2]}
    options = RunOptions(TIMEOUT, batched=case.source.prepared.batched)
    emulated = Emulator(folder=cache_folder() / NAME).target(CPU).send
    (host,) = run(case.model, few, options).outputs.values()
    (arm,) = run(case.model, few, dataclasses.replace(options, send=emulated)).outputs.values()
    noise = ((host - arm) ** 2).sum((0, 1, 2)) / (host**2).sum((0, 1, 2))
    return int(np.count_nonzero(noise > 0.1)), sum(resize.columns for resize in case.runs.int8_faults.resizes)


def main() -> None:
    """Print a line per resize."""
    wrong = spoilt = 0
    for given, made, form in CASES:
        images = {"image": smooth((16, 3, 8, given), 1)}
        with tempfile.TemporaryDirectory(prefix="resize-") as name:
            folder, network = Path(name), Resized(made, form)
            written = judged(network, images, folder)
            by_recipe = columns(written, images)
            planted = with_int8_resize(written.model, folder / "planted.mnn")
            seen, said = columns(judged(network, images, folder, planted), images)
        wrong += seen != said
        spoilt += by_recipe != (0, 0)
        print(f"{given} to {made}, {form}: {seen} columns wrong on ARM, {said} by the file", flush=True)
    print(f"{wrong} of {len(CASES)} int8 resizes judged wrongly, {spoilt} spoilt by the recipe")


if __name__ == "__main__":
    main()
