"""The original PyTorch quantizer, mnncompress 0.3.2, in `offline` mode, called as its documentation describes.

A pipeline like any other (see `pipeline.py`); the two exporters are two callables. Its quirks are kept, since its users
ship them: ranges are moving averages that start with the first batch, and move with each later pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pytest_mnnquant.sources.pytorch import export_keywords, suppress_output
from pytest_mnnquant.sources.spec import SourceError, describe
from pytest_mnnquant.sources.torch_call import named_outputs

if TYPE_CHECKING:
    from pytest_mnnquant.quantize.pipeline_monitor import Calibration

_ONNX, _PARAMS = "quant_model.onnx", "compress_params_index.bin"
_KNOWN = (torch.nn.Conv2d, torch.nn.Linear)


def torchscript(model: torch.nn.Module, calibration: Calibration, mode: str, outdir: str) -> dict[str, Path]:
    """Calibrate, and export with the TorchScript exporter."""
    return _run(model, calibration, mode, Path(outdir), dynamo=False)


def dynamo(model: torch.nn.Module, calibration: Calibration, mode: str, outdir: str) -> dict[str, Path]:
    """Calibrate, and export with the dynamo exporter."""
    return _run(model, calibration, mode, Path(outdir), dynamo=True)


def _run(model: torch.nn.Module, calibration: Calibration, mode: str, outdir: Path, *, dynamo: bool) -> dict[str, Path]:
    known = {name for name, module in model.named_modules() if isinstance(module, _KNOWN)}
    if not known:
        raise SourceError("mnncompress: the model has no Conv2d or Linear module, the only layers it quantizes")
    if clash := sorted(known & set(calibration.names)):
        raise SourceError(
            f"mnncompress: it confuses the input {clash[0]!r} with the module of that name; rename one of them"
        )
    quantizer_class = _lsq_quantizer()
    try:
        quantizer = quantizer_class(model, mode="offline")
        quantized = quantizer.convert()
    except Exception as error:
        raise SourceError(
            f"mnncompress: it can't trace and rewrite the model with torch.fx: {describe(error)}; "
            "use --mnn-recipe=int8, which does not trace"
        ) from error
    quantized.train(mode == "train")
    outputs: Any = None
    dummy: tuple[torch.Tensor, ...] = ()
    with torch.no_grad():
        for inputs in calibration:
            outputs = quantized(*inputs)
            dummy = dummy or inputs
    scales = {name: value for name, value in quantized.named_parameters() if name.endswith("scale")}
    broken = [name for name, value in scales.items() if not torch.isfinite(value).all()]
    if broken:
        raise SourceError(
            f"mnncompress: {broken[0]} is NaN: it divides by the range of each batch, and a tensor of one batch was "
            "all zeros; remove blank samples from the calibration data"
        )
    quantizer.strip_qat_ops()
    quantized.eval()
    if dynamo:
        # The stripped fake quantizers stay in the graph as dead code, which torch.export can't trace.
        quantized.graph.eliminate_dead_code()
        quantized.recompile()
    else:
        # The TorchScript exporter turns optional numeric parameters into model inputs.
        forward = quantized.forward
        quantized.forward = lambda *inputs: forward(*inputs)
    names, axes = list(named_outputs(outputs, calibration.names)), calibration.axes
    if not calibration.batched:
        places = [axes.inputs.get(name, 0) for name in calibration.names]
        dummy = tuple(
            tensor if axis is None else tensor.narrow(axis, 0, 1) for tensor, axis in zip(dummy, places, strict=True)
        )
    options = export_keywords(list(calibration.names), names, dynamo=dynamo, dynamic=calibration.batched, axes=axes)
    other = "torchscript" if dynamo else "dynamo"
    try:
        with suppress_output():
            torch.onnx.export(quantized, dummy, str(outdir / _ONNX), **options)
    except Exception as error:
        raise SourceError(
            f"mnncompress: the exporter failed: {describe(error)}; use the other one: --mnn-exporter={other}"
        ) from error
    try:
        quantizer.save_compress_params(str(outdir / _ONNX), str(outdir / _PARAMS))
    except Exception as error:
        raise SourceError(
            f"mnncompress: it can't find its layers in the ONNX model that it exported: {describe(error)}; try the "
            f"names of the other exporter: --mnn-exporter={other}"
        ) from error
    return {"onnx": outdir / _ONNX, "params": outdir / _PARAMS}


def _lsq_quantizer() -> Any:
    try:
        from mnncompress.pytorch import LSQQuantizer
    except ImportError as error:
        raise SourceError(
            f"mnncompress: it can't be imported ({error}): pip install 'pytest-mnnquant[torch,mnncompress]'"
        ) from error
    return LSQQuantizer
