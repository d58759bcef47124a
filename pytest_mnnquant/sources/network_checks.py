"""Refuses PyTorch models that can't be judged, before MNN is involved: their own faults must not look like MNN's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_mnnquant.sources.spec import QuantizedSource, SourceError

if TYPE_CHECKING:
    import torch

#: The packages of modules and tensors that hold quantized weights.
_QUANTIZED: Final = (
    *("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized", "torch.ao.nn.sparse.quantized"),
    *("torchao.", "bitsandbytes.", "optimum.quanto.", "quanto.", "hqq.", "awq.", "auto_gptq.", "gptqmodel."),
)


def require_usable(network: torch.nn.Module, name: str) -> None:
    """Raise `SourceError` for weights without values, and for those that are not finite real numbers."""
    from torch.nn.parameter import is_lazy

    _require_float_modules(network, name)
    _require_statistics(network, name)
    weights = dict(network.named_parameters())
    for key, tensor in {**weights, **dict(network.named_buffers())}.items():
        if is_lazy(tensor):
            continue
        if tensor.is_meta:
            fix = "load the weights before the callable returns the model"
            raise SourceError(f"{name}: {key} is on the device 'meta': it has no values", fix)
        if tensor.is_complex():
            raise SourceError(f"{name}: {key} is complex, which MNN does not support", "compute with real numbers")
        if tensor.is_floating_point() and _is_broken(tensor, key in weights):
            what = "NaN or infinity" if key in weights else "NaN"
            raise SourceError(
                f"{name}: {key} holds {what}: the model itself is broken, before it is exported",
                "load the weights of a training that did not diverge",
            )


def require_no_bfloat16(network: torch.nn.Module, name: str) -> None:
    """Raise `SourceError` that names the first bfloat16 weight: MNN 3.6.1 misreads it in an ONNX file."""
    import torch

    weights = (*network.named_parameters(), *network.named_buffers())
    key = next((key for key, tensor in weights if tensor.dtype is torch.bfloat16), None)
    if key is not None:
        raise SourceError(
            f"{name}: {key} is bfloat16, which MNN misreads, and forward() does not run with float32 weights",
            f"let the input follow the weights in forward(), as in x.to(self.{key}.dtype)",
        )


def _require_float_modules(network: torch.nn.Module, name: str) -> None:
    """Raise `QuantizedSource` that names the first module which a library for PyTorch quantized."""
    for place, module in network.named_modules():
        kinds = [type(module), *(type(value) for value in vars(module).get("_parameters", {}).values())]
        quantized = next((kind for kind in kinds if kind.__module__.startswith(_QUANTIZED)), None)
        if quantized is not None:
            what = f"{quantized.__module__}.{quantized.__qualname__}"
            raise QuantizedSource(f"{name}: {place or 'the model'} is quantized already ({what})")


def _require_statistics(network: torch.nn.Module, name: str) -> None:
    from torch.nn.modules.batchnorm import _BatchNorm

    for place, module in network.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise SourceError(
                f"{name}: {place or 'the model'} is a BatchNorm without running statistics, which mixes the samples of "
                "a batch in eval mode too",
                "train it with track_running_stats=True, or use GroupNorm or InstanceNorm",
            )


def _is_broken(tensor: torch.Tensor, is_parameter: bool) -> bool:
    """Whether a tensor holds NaN, or as a parameter infinity. Masks in buffers and in frozen parameters hold -inf."""
    values = _plain(tensor)
    if not is_parameter:
        return bool(values.isnan().any())
    usable = values.isfinite() if tensor.requires_grad else values.isfinite() | values.isneginf()
    return not bool(usable.all())


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in a type that `isfinite` supports: it has no form for 8-bit floats."""
    return tensor.float() if tensor.element_size() == 1 else tensor


def require_plain_output(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor. Raises `SourceError` if it is sparse, quantized or complex."""
    import torch

    fix = "return dense tensors of real numbers from forward()"
    if tensor.layout is not torch.strided:
        raise SourceError(f"the model returns a tensor of the layout {str(tensor.layout).removeprefix('torch.')}", fix)
    if tensor.is_quantized or tensor.is_complex():
        raise SourceError(f"the model returns a tensor of {str(tensor.dtype).removeprefix('torch.')}", fix)
    return tensor
