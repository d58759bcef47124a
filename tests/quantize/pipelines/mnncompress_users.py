"""Pipelines with mnncompress as users write them: a healthy one, and one for each way to spoil it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn


def quantizer_for(model: nn.Module) -> Any:
    from mnncompress.pytorch import LSQQuantizer

    quantizer = LSQQuantizer(model, mode="offline")
    quantizer.convert()
    return quantizer


def calibrate(net: nn.Module, calibration: Any) -> None:
    with torch.no_grad():
        for inputs in calibration:
            net(*inputs)


def write(quantizer: Any, dummy: torch.Tensor, outdir: str) -> None:
    net = quantizer._gm
    quantizer.strip_qat_ops()
    net.eval()
    onnx = Path(outdir) / "net.onnx"
    torch.onnx.export(net, (dummy,), str(onnx), dynamo=False)
    quantizer.save_compress_params(str(onnx), str(Path(outdir) / "params.bin"))


def first(calibration: Any) -> torch.Tensor:
    (x,) = next(iter(calibration))
    assert isinstance(x, torch.Tensor)
    return x


def healthy(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    quantizer = quantizer_for(model)
    quantizer._gm.train(mode == "train")
    calibrate(quantizer._gm, calibration)
    write(quantizer, first(calibration), outdir)


def without_a_loop(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    write(quantizer_for(model), torch.rand(1, 1, 16, 16), outdir)


def carelessly(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """Gradients are recorded, and the net is in train mode whatever was asked."""
    quantizer = quantizer_for(model)
    quantizer._gm.train()
    for inputs in calibration:
        quantizer._gm(*inputs)
    write(quantizer, first(calibration), outdir)


def evaluated_afterwards(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    quantizer = quantizer_for(model)
    calibrate(quantizer._gm, calibration)
    calibrate(quantizer._gm, louder(calibration))
    write(quantizer, first(calibration), outdir)


def louder(calibration: Any) -> Iterator[tuple[torch.Tensor]]:
    for (x,) in calibration:
        yield (x * 5,)


def with_a_wild_dummy(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    quantizer = quantizer_for(model)
    calibrate(quantizer._gm, calibration)
    write(quantizer, first(calibration) * 1000, outdir)


def retrained(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """What training in place does to the model it was given."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    healthy(model, calibration, mode, outdir)
