"""Makes the small files of tests/mnnfile/data with older MNN wheels, and what those wheels compute with them.

python benchmarks/old_files.py tests/mnnfile/data --old 3.0.0=PYTHON --old 3.2.0=PYTHON

One convolution each, run on unit inputs, so that its outputs are its weights: arrays of `computed.npz`, by file.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from corpus import EXTERNAL, SPARSE, SYMMETRIC, W4, W8, Wheel, old_wheel
from layer_check import observed
from torch import nn

from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.calibration import Range, make_params, save_params
from pytest_mnnquant.sources.data import as_dataset
from pytest_mnnquant.sources.pytorch import ExportOptions, export

IDENTITY: Final = np.eye(72, dtype=np.float32).reshape(-1, 8, 3, 3)
RECIPES: Final[dict[str, tuple[str, ...]]] = {
    "w8": W8,
    "w4-sym": (*W4, SYMMETRIC),
    "w8-ext": (*W8, EXTERNAL),
    "fp16": ("--fp16",),
    "sparse": (SPARSE,),
    "sparse-w8": (*W8, SPARSE),
}


def _network(zeros: float) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 6, 3, bias=False)
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight[:1]) >= zeros)
        layer.weight.div_(layer.weight.abs().amax((1, 2, 3), keepdim=True))
    return nn.Sequential(layer).eval()


def _computed(model: Model, wheel: Wheel) -> npt.NDArray[Any]:
    (op,) = model.convolutions
    return observed(model, [op], wheel, {"input": IDENTITY})["0o"].reshape(72, -1).T


def _params(base: Model, folder: Path) -> tuple[str, str]:
    (op,) = base.convolutions
    params = make_params(base, (op,), {op.inputs[0]: Range(-1, 1), op.outputs[0]: Range(-1, 1)})
    return "--compressionParamsFile", str(save_params(params, folder / "params.bin").resolve())


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--old", type=old_wheel, action="append", default=[])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, npt.NDArray[Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        onnx = {zeros: Path(name) / f"{zeros}.onnx" for zeros in (0.0, 0.9)}
        data = as_dataset({"input": IDENTITY}, ("input",), "unit inputs")
        for zeros, path in onnx.items():
            export(_network(zeros), data, path, ExportOptions("one layer"))
        for wheel in options.old:
            base = Path(name) / f"float-{wheel.version}.mnn"
            wheel.convert(onnx[0.0], base)
            work = {r: partial(wheel.convert, onnx[0.9 if SPARSE in f else 0.0], flags=f) for r, f in RECIPES.items()}
            work["params"] = partial(wheel.convert, base, flags=_params(read_model(base), Path(name)))
            for recipe, make in work.items():
                target = options.folder / f"{recipe}@{wheel.version}.mnn"
                make(target)
                values[target.stem] = _computed(read_model(target), wheel)
    np.savez_compressed(options.folder / "computed.npz", allow_pickle=False, **values)


if __name__ == "__main__":
    main()
