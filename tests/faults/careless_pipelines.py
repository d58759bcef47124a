"""Pipelines with mnncompress as users write them: a careful one, and one for each way to spoil the calibration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

Calibrate = Callable[[nn.Module, Any], None]


def _run(model: nn.Module, calibration: Any, outdir: str, calibrate: Calibrate, loudness: float = 1.0) -> None:
    from mnncompress.pytorch import LSQQuantizer

    quantizer = LSQQuantizer(model, mode="offline")
    net = quantizer.convert()
    calibrate(net, calibration)
    quantizer.strip_qat_ops()
    net.eval()
    onnx, dummy = Path(outdir) / "net.onnx", torch.rand(4, 1, 16, 16) * loudness
    axes = {"x": {0: "batch"}, "output": {0: "batch"}}
    torch.onnx.export(
        net, (dummy,), str(onnx), dynamo=False, input_names=["x"], output_names=["output"], dynamic_axes=axes
    )
    quantizer.save_compress_params(str(onnx), str(Path(outdir) / "params.bin"))


def _loop(net: nn.Module, calibration: Any) -> None:
    with torch.no_grad():
        for (x,) in calibration:
            net(x)


def careful(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    _run(model, calibration, outdir, lambda net, data: _loop(net.eval(), data))


def without_a_loop(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    _run(model, calibration, outdir, lambda net, data: None)


def with_one_batch(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    _run(model, calibration, outdir, lambda net, data: _loop(net.eval(), [next(iter(data))]))


def carelessly(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """In train mode whatever was asked, and with gradients."""

    def loop(net: nn.Module, data: Any) -> None:
        net.train()
        for (x,) in data:
            net(x)

    _run(model, calibration, outdir, loop)


def trained_on(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    careful(model, calibration, mode, outdir)


def evaluated_afterwards(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    def loop(net: nn.Module, data: Any) -> None:
        _loop(net.eval(), data)
        for _ in range(5):
            _loop(net, [(5 * x,) for (x,) in data])

    _run(model, calibration, outdir, loop)


def with_a_wild_dummy(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    _run(model, calibration, outdir, lambda net, data: _loop(net.eval(), data), loudness=1000.0)
