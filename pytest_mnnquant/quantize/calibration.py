"""The ranges of a model's tensors on calibration data, and the params that follow from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params, WeightParams, write_params
from pytest_mnnquant.quantize.carry import Carried
from pytest_mnnquant.runtime.execute import tensor_ranges
from pytest_mnnquant.sources.data import Dataset

# Codes -127..127 as mnncompress uses them: symmetric kernels never see -128.
_LOWEST, _HIGHEST = -127, 127
_SMALLEST_SCALE = 1e-8
INT8_KINDS = ("Convolution", "ConvolutionDepthwise")


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value seen in a tensor. `symmetric`: its zero point must be 0 (see `carry`)."""

    low: float
    high: float
    symmetric: bool = False

    def merged(self, other: Range) -> Range:
        """The range of both."""
        return Range(min(self.low, other.low), max(self.high, other.high), self.symmetric or other.symmetric)

    def affine(self) -> tuple[float, int]:
        """(scale, zero point) that map the range, widened to hold 0, onto codes -127..127.

        scale = (high - low) / 254, zero point = round(-low / scale) - 127 (mnncompress 0.3.2, LSQ_quantizer.py);
        symmetric: scale = max(|low|, |high|) / 127, zero point = 0.
        """
        if self.symmetric:
            return max(abs(self.low), abs(self.high), _HIGHEST * _SMALLEST_SCALE) / _HIGHEST, 0
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        scale = max((high - low) / (_HIGHEST - _LOWEST), _SMALLEST_SCALE)
        return scale, int(np.clip(round(-low / scale + _LOWEST), _LOWEST, _HIGHEST))


def int8_layers(model: Model) -> tuple[Op, ...]:
    """The layers that MNN can run in int8: convolutions and Linear layers of the main graph with float weights."""
    return tuple(op for op in model.convolutions if op.kind in INT8_KINDS and len(op.inputs) == 1)


def runtime_ranges(
    model: Model, ops: tuple[Op, ...], data: Dataset, *, timeout: float, batched: bool, only: set[int] | None = None
) -> dict[int, Range]:
    """Ranges from MNN's own run of the float model, by tensor index, of the operators that ran."""
    extremes = tensor_ranges(model, [op.name for op in ops], data.inputs, timeout=timeout, batched=batched)
    low, high = extremes[..., 0].min(axis=0), extremes[..., 1].max(axis=0)
    found: dict[int, Range] = {}
    for number, op in enumerate(ops):
        for side, tensor in enumerate((op.inputs[0], op.outputs[0])):
            if (only is None or tensor in only) and np.isfinite([low[number, side], high[number, side]]).all():
                found[tensor] = Range(float(low[number, side]), float(high[number, side]))
    return found


def settled(ranges: dict[int, Range], links: tuple[Carried, ...]) -> dict[int, Range]:
    """The ranges as the params file needs them: wide and symmetric enough for where MNN carries them."""
    found = dict(ranges)
    for link in links:
        if link.tensor in found:
            widened = found[link.tensor].merged(ranges.get(link.output, found[link.tensor]))
            found[link.tensor] = dataclasses.replace(widened, symmetric=link.clamps_at_zero)
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
