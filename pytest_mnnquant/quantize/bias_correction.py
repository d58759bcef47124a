"""Bias correction: biases make up for the mean error of a layer's int8 weights and inputs.

Rounding does not cancel exactly: the mean of an output channel moves by E[W_q x_q] - E[W x], which the following layers
see as a shift. The mean is measured on calibration data, layer by layer, with the codes that MNN computes with: weights
as the params file gives them, inputs rounded and clipped to their tensor's codes (Nagel et al. 2019,
https://arxiv.org/abs/1906.04721, section 4.2, empirical form, with the float model's inputs, so that a layer's bias
makes up for the error of this layer only).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.channel_classes import filter_inputs, input_channels
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams
from pytest_mnnquant.mnnfile.rewriting import biases, is_rewritable
from pytest_mnnquant.mnnfile.storage import Floats
from pytest_mnnquant.quantize.layer_inputs import layer_tensors
from pytest_mnnquant.runtime.options import RunOptions

Means = npt.NDArray[np.float64]
#: A shift below this share of the output's standard deviation is not worth a change.
_SMALLEST: Final = 1e-4


@dataclass(frozen=True)
class _Inputs:
    """The mean of each input channel of a layer: in float, and after rounding to codes; shape [channels]."""

    exact: Means
    coded: Means


def corrected_biases(
    model: Model,
    entries: Mapping[str, LayerParams],
    data: Dataset,
    options: RunOptions,
    weights: Mapping[str, Floats] | None = None,
) -> dict[str, Floats]:
    """The corrected biases of layers by name. `entries`: what the params file says of each layer.

    `weights` are those that the int8 model is made from, by layer, if not the float model's.

    The mean over positions counts an input channel once per weight of the kernel, so padding is not seen: on a border
    of one value the mean error is that of the inside. Raises `NativeFailure`.
    """
    layers = tuple(op for op in model.convolutions if op.name in entries and _is_correctable(op))
    given = weights or {}
    means = _input_means(model, layers, entries, data, options)
    shifts = {
        op.name: _shift(model, op, entries[op.name], means[op.name], given.get(op.name))
        for op in layers
        if op.name in means
    }
    return {
        op.name: (biases(op) - shifts[op.name]).astype(np.float32)
        for op in layers
        if op.name in shifts and (np.abs(shifts[op.name]) > _SMALLEST * np.abs(biases(op))).any()
    }


def rounded_weights(weights: Floats, scales: Floats, low: float, high: float) -> Floats:
    """The weights that int8 codes stand for; `weights` has shape [channels, n], `scales` [channels]."""
    steps = scales.reshape(-1, 1)
    return np.asarray(np.clip(np.rint(weights / steps), low, high) * steps, np.float32)


def rounded_values(values: npt.NDArray[np.float32], grid: ActivationParams) -> npt.NDArray[np.float32]:
    """The values that int8 codes of a tensor stand for."""
    codes = np.clip(np.rint(values / grid.scale) + grid.zero_point, grid.clamp_min, grid.clamp_max)
    return np.asarray((codes - grid.zero_point) * grid.scale, np.float32)


def _is_correctable(op: Op) -> bool:
    return op.kind in ("Convolution", "ConvolutionDepthwise") and is_rewritable(op)


def _input_means(
    model: Model, layers: tuple[Op, ...], entries: Mapping[str, LayerParams], data: Dataset, options: RunOptions
) -> dict[str, _Inputs]:
    sums: dict[str, list[_Inputs]] = {}
    for tensors in layer_tensors(model, layers, data, options):
        for op in layers:
            values, grid = tensors[op.name][0], entries[op.name].input
            channels = input_channels(op)
            if values is None or grid is None or values.shape[1] % channels:
                continue
            shaped = values.reshape(len(values), channels, -1)
            both = (shaped.mean((0, 2), np.float64), rounded_values(shaped, grid).mean((0, 2), np.float64))
            sums.setdefault(op.name, []).append(_Inputs(*both))
    return {
        name: _Inputs(np.mean([item.exact for item in items], 0), np.mean([item.coded for item in items], 0))
        for name, items in sums.items()
    }


def _shift(model: Model, op: Op, entry: LayerParams, means: _Inputs, weights: Floats | None) -> Means:
    """E[W_q x_q] - E[W x] of each output channel; `weights` are those to quantize, if not the float model's."""
    exact = model.decoded(op)
    changed = exact if weights is None else weights.reshape(exact.shape)
    low, high = entry.weight.clamp_min, entry.weight.clamp_max
    coded = rounded_weights(changed, np.array(entry.weight.scales, np.float32), low, high)
    places = filter_inputs(op)
    before, after = (item.reshape(*places.shape, -1).sum(2, dtype=np.float64) for item in (exact, coded))
    return np.asarray((after * means.coded[places] - before * means.exact[places]).sum(1))
