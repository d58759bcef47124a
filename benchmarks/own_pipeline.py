"""A pipeline as a team may have one: exports to ONNX, and MNN's converter makes 8-bit weights on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def quantize(model: torch.nn.Module, calibration: Any, mode: str | None, outdir: str) -> list[str]:
    """Write the model with 8-bit weights into `outdir` and return its path."""
    import _tools

    onnx, made = Path(outdir, "net.onnx"), Path(outdir, "net.mnn")
    names = list(calibration.names)
    options: dict[str, Any] = {"input_names": names, "output_names": ["output"], "dynamo": False}
    if calibration.batched:
        options["dynamic_axes"] = {name: {0: "batch"} for name in [*names, "output"]}
    example = tuple(tensor[: 2 if calibration.batched else 1] for tensor in next(iter(calibration)))
    torch.onnx.export(model.eval(), example, str(onnx), **options)
    files = ["--modelFile", str(onnx), "--MNNModel", str(made), "--bizCode", "own"]
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, "--weightQuantBits", "8"])
    return [str(made)]
