"""Pipelines as a team may have them: exported to ONNX, and quantized by MNN's own tools."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch

_FOLDERS = 8


def quantize(model: torch.nn.Module, calibration: Any, mode: str | None, outdir: str) -> list[str]:
    """Write the model with 8-bit weights into `outdir` and return its path."""
    return [str(_converted(model, calibration, Path(outdir), "net.mnn", "--weightQuantBits", "8"))]


def four_bits(model: torch.nn.Module, calibration: Any, mode: str | None, outdir: str) -> list[str]:
    """Write what MNN's offline tool makes with `quant_bits` 4 into `outdir` and return its path."""
    import _tools

    from pytest_mnnquant.quantize.mnnquant_samples import as_text

    folder, made = Path(outdir), Path(outdir, "net.mnn")
    converted = _converted(model, calibration, folder, "float.mnn")
    chosen = itertools.islice(calibration, _FOLDERS)
    batches = [dict(zip(calibration.names, batch, strict=True)) for batch in chosen]
    inputs = [{"name": name, "shape": list(tensor.shape)} for name, tensor in batches[0].items()]
    for number, batch in enumerate(batches):
        sample = folder / "samples" / f"{number:03d}"
        sample.mkdir(parents=True)
        (sample / "input.json").write_text(json.dumps({"inputs": inputs}))
        for name, tensor in batch.items():
            (sample / f"{name}.txt").write_bytes(as_text(tensor.numpy()))
    config = {
        "input_type": "sequence",
        "path": f"{folder / 'samples'}/",
        "used_sample_num": len(batches),
        "feature_quantize_method": "KL",
        "weight_quantize_method": "MAX_ABS",
        "quant_bits": 4,
        "inputs": inputs,
    }
    (folder / "quant.json").write_text(json.dumps(config))
    _tools.mnnquant(["mnnquant", str(converted), str(made), str(folder / "quant.json")])
    return [str(made)]


def _converted(model: torch.nn.Module, calibration: Any, folder: Path, name: str, *flags: str) -> Path:
    """The model in ONNX, and what MNN's converter makes of it."""
    import _tools

    onnx, made = folder / "net.onnx", folder / name
    names = list(calibration.names)
    options: dict[str, Any] = {"input_names": names, "output_names": ["output"], "dynamo": False}
    if calibration.batched:
        options["dynamic_axes"] = {name: {0: "batch"} for name in [*names, "output"]}
    example = tuple(tensor[: 2 if calibration.batched else 1] for tensor in next(iter(calibration)))
    torch.onnx.export(model.eval(), example, str(onnx), **options)
    files = ["--modelFile", str(onnx), "--MNNModel", str(made), "--bizCode", "own"]
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, *flags])
    return made
