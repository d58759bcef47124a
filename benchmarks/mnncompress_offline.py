"""Calibration by mnncompress's LSQQuantizer in offline mode, as its users run it. Only for a process of its own.

mnncompress needs an old protobuf (or its slow Python form, chosen by an environment variable before it is imported),
and at import it installs a package and calls home, unless its logger is replaced first.

python benchmarks/mnncompress_offline.py ARCHITECTURE FOLDER OUTPUT [--passing]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from architectures import ARCHITECTURES

BATCH: Final = 32
ENVIRONMENT: Final = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}


def quantizers() -> Any:
    """The module of LSQQuantizer, imported without telemetry."""
    assert os.environ.items() >= ENVIRONMENT.items(), "start this in a process with mnncompress's environment"
    log: Any = types.ModuleType("mnncompress.common.log")
    log.mnn_logger = types.SimpleNamespace(on_done=lambda *_: True)
    sys.modules["mnncompress.common.log"] = log
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mnncompress.pytorch import LSQ_quantizer

    return LSQ_quantizer


def pass_through(module: Any) -> None:
    """Let observers see a tensor and pass it on unrounded: mnncompress rounds it, and later observers see that."""
    for name in ("_FeatureFakeQuantModule", "_Conv2dWeightFakeQuantModule", "_LinearWeightFakeQuantModule"):
        kind = getattr(module, name)

        def forward(self: Any, x: torch.Tensor, rounded: Any = kind.forward) -> torch.Tensor:
            rounded(self, x)
            return x

        kind.forward = forward


def watching(module: Any, network: torch.nn.Module) -> tuple[Any, Any]:
    """The quantizer of a network, and the network with observers in it, in eval mode."""
    with contextlib.redirect_stdout(io.StringIO()):
        quantizer = module.LSQQuantizer(network, mode="offline")
        return quantizer, quantizer.convert().eval()


def calibrate(network: Any, arrays: list[torch.Tensor]) -> None:
    """Run all samples through, in batches."""
    with torch.no_grad():
        for start in range(0, len(arrays[0]), BATCH):
            network(*(array[start : start + BATCH] for array in arrays))


def write(quantizer: Any, network: Any, arrays: dict[str, torch.Tensor], folder: Path) -> None:
    """Export to `theirs.onnx` and write `theirs.bin`."""
    quantizer.strip_qat_ops()
    # The observers that are left without users would run in the export too, and change their ranges.
    network.graph.eliminate_dead_code()
    network.recompile()
    names, onnx = list(arrays), folder / "theirs.onnx"
    axes = {name: {0: "batch"} for name in [*names, "output"]}
    options: dict[str, Any] = {"input_names": names, "output_names": ["output"], "dynamic_axes": axes, "dynamo": False}
    example = tuple(array[:2] for array in arrays.values())
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, example, str(onnx), **options)
        quantizer.save_compress_params(str(onnx), str(folder / "theirs.bin"))


def main() -> None:
    """Calibrate one architecture and leave its ONNX model and params file in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=list(ARCHITECTURES))
    parser.add_argument("folder", type=Path, help="where trained weights are kept")
    parser.add_argument("output", type=Path, help="where theirs.onnx and theirs.bin go")
    parser.add_argument("--passing", action="store_true", help="do not round what is observed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    architecture = ARCHITECTURES[options.architecture]
    module = quantizers()
    if options.passing:
        pass_through(module)
    arrays = {name: torch.from_numpy(np.array(array)) for name, array in architecture.calibration().items()}
    quantizer, watched = watching(module, architecture.trained(options.folder / "weights"))
    calibrate(watched, list(arrays.values()))
    write(quantizer, watched, arrays, options.output)


if __name__ == "__main__":
    main()
