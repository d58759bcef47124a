"""The ranges of a model's tensors on calibration data, and the params that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params, WeightParams, write_params
from pytest_mnnquant.runtime.execute import tensor_ranges
from pytest_mnnquant.sources.data import Dataset

# Codes -127..127 as mnncompress uses them: symmetric kernels never see -128.
_LOWEST, _HIGHEST = -127, 127
_SMALLEST_SCALE = 1e-8
INT8_KINDS = ("Convolution", "ConvolutionDepthwise")


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value seen in a tensor."""

    low: float
    high: float

    def merged(self, other: Range) -> Range:
        """The range of both."""
        return Range(min(self.low, other.low), max(self.high, other.high))

    def affine(self) -> tuple[float, int]:
        """(scale, zero point) that map the range, widened to hold 0, onto codes -127..127.

        scale = (high - low) / 254, zero point = round(-low / scale) - 127 (mnncompress 0.3.2, LSQ_quantizer.py).
        """
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        scale = max((high - low) / (_HIGHEST - _LOWEST), _SMALLEST_SCALE)
        return scale, int(np.clip(round(-low / scale + _LOWEST), _LOWEST, _HIGHEST))


def int8_layers(model: Model) -> tuple[Op, ...]:
    """The layers that MNN can run in int8: convolutions and Linear layers of the main graph with float weights."""
    return tuple(op for op in model.convolutions if op.kind in INT8_KINDS and len(op.inputs) == 1)


def runtime_ranges(
    model: Model, layers: tuple[Op, ...], data: Dataset, *, timeout: float, batched: bool, only: set[int] | None = None
) -> dict[int, Range]:
    """Ranges from MNN's own run of the float model, for sources that are not PyTorch."""
    extremes = tensor_ranges(model, [op.name for op in layers], data.inputs, timeout=timeout, batched=batched)
    low, high = np.nanmin(extremes[..., 0], axis=0), np.nanmax(extremes[..., 1], axis=0)
    found: dict[int, Range] = {}
    for number, op in enumerate(layers):
        for side, tensor in enumerate((op.inputs[0], op.outputs[0])):
            if only is None or tensor in only:
                found[tensor] = Range(float(low[number, side]), float(high[number, side]))
    return found


def make_params(model: Model, layers: tuple[Op, ...], ranges: dict[int, Range]) -> Params:
    """Params for `layers`, from the ranges of their input and output tensors (by tensor index)."""

    def activation(tensor: int) -> ActivationParams:
        scale, zero = ranges[tensor].affine()
        name = model.tensor_names[tensor]
        return ActivationParams(name, scale, zero, clamp_min=_LOWEST, clamp_max=_HIGHEST)

    def layer(op: Op) -> LayerParams:
        scales = weight_scales(model.decoded(op))
        weight = WeightParams(op.name, tuple(scales.tolist()), clamp_min=_LOWEST, clamp_max=_HIGHEST)
        return LayerParams(weight, activation(op.inputs[0]), activation(op.outputs[0]))

    return Params(tuple(layer(op) for op in layers), model.uuid)


def weight_scales(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Symmetric 8-bit scale of each channel, max |w| / 127; `weights` has shape [channels, n]."""
    return np.maximum(np.abs(weights).max(1) / _HIGHEST, _SMALLEST_SCALE)  # type: ignore[no-any-return]


def save_params(params: Params, path: Path) -> Path:
    """Write the params file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_params(params, path)
    return path
