"""BatchNorms that MNN does not fold into the layer before them, and a correct replacement.

MNN folds a BatchNorm that directly follows a convolution. Any other becomes a `Scale` operator. Between int8 layers
MNN 3.6.1 runs it in int8 and ignores its input, on x86 and on ARM: each output channel is constant. The same arithmetic
exported as a multiplication and an addition is correct.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.tensor_binding import Moments, moments_of
from pytest_mnnquant.quantize.torch_watch import Value, watch_values
from pytest_mnnquant.runtime.inference import tensor_values
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.pytorch import as_tensors, suppress_output
from pytest_mnnquant.sources.torch_replacements import runs_code_of, set_norm_step, uses_batch_norm

_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
_PROBE_SAMPLES = 4


class MultiplyAdd(torch.nn.Module):
    """A BatchNorm in eval mode: y = x * factor + offset per channel (axis 1)."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        factor = torch.rsqrt(norm.running_var + norm.eps) * (1.0 if norm.weight is None else norm.weight.detach())
        offset = (0.0 if norm.bias is None else norm.bias.detach()) - norm.running_mean * factor
        self.register_buffer("factor", factor)
        self.register_buffer("offset", offset)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply and add, per channel."""
        shape = [1, -1] + [1] * (x.dim() - 2)
        factor, offset = self.get_buffer("factor"), self.get_buffer("offset")
        return x * factor.reshape(shape) + offset.reshape(shape)


def _is_replaceable(module: torch.nn.Module) -> bool:
    """Whether a BatchNorm computes what torch defines, or an InstanceNorm computes by BatchNorm in eval mode."""
    return uses_batch_norm(module) or (isinstance(module, _NORMS) and runs_code_of(module, "torch.nn."))


def find_unfolded(network: torch.nn.Module, model: Model, data: Dataset, options: RunOptions) -> frozenset[str]:
    """The names of the BatchNorm modules that became `Scale` operators in the float `.mnn`: those with equal values."""
    scales = [op for op in model.ops if op.kind == "Scale" and not op.subgraph]
    norms = {name for name, module in network.named_modules() if _is_replaceable(module)}
    if not scales or not norms:
        return frozenset()
    count = _PROBE_SAMPLES if options.batched else 1
    known: list[tuple[str, Moments]] = []

    def remember(value: Value, tensor: torch.Tensor) -> None:
        # A ReLU may be fused into the Scale, so its values count as the BatchNorm's too.
        if value.module in norms:
            identities = (moments_of(possible) for possible in (tensor, tensor.clamp_min(0)))
            known.extend((value.module, item) for item in identities if item is not None)

    with suppress_output(), watch_values(network, remember) as run:
        run(*as_tensors(data.batch(count), network))
    traced = tensor_values(model, scales, data.head(count), options)
    outputs: list[npt.NDArray[np.float32] | None] = [traced[op.name][1] for op in scales]
    scale_values = [values for output in outputs if output is not None and (values := moments_of(output)) is not None]
    return frozenset(name for name, values in known if any(values.matches(other) for other in scale_values))


def replace_unfolded(network: torch.nn.Module, names: frozenset[str]) -> torch.nn.Module:
    """A copy of the network in eval mode in which the named BatchNorms are multiplications and additions."""
    if not names:
        return network
    copied = copy.deepcopy(network).eval()
    for name in names:
        norm, (parent, _, attribute) = copied.get_submodule(name), name.rpartition(".")
        if uses_batch_norm(norm):
            set_norm_step(norm, MultiplyAdd(norm))
        else:
            setattr(copied.get_submodule(parent), attribute, MultiplyAdd(norm))
    return copied
