"""Rounding of weights by their effect on the layer's output, instead of to the nearest code.

Each weight may take the code below or above it. The codes are chosen that keep the layer's output on calibration data
closest to the float output: they minimize (w_q - w) H (w_q - w)^T for each filter, with H = E[x x^T] over the inputs
x that the filter reads (Nagel et al. 2020, https://arxiv.org/abs/2004.10568, equation 11). The paper relaxes the choice
and trains it; here the code that gains most is changed first, until none gains or a bounded number has changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.channel_classes import is_depthwise
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import LayerParams
from pytest_mnnquant.mnnfile.rewriting import is_rewritable
from pytest_mnnquant.mnnfile.settings import settings
from pytest_mnnquant.mnnfile.storage import Floats
from pytest_mnnquant.quantize.layer_inputs import layer_tensors
from pytest_mnnquant.runtime.options import RunOptions

Moments = npt.NDArray[np.float64]
#: Layers with more weights per filter keep the nearest codes: H has the square of this number of values.
_LARGEST_FILTER: Final = 2048
#: Codes that may change per filter, and positions of a feature map that are read per batch.
_CHANGES: Final = 256
_POSITIONS: Final = 4096


def rounded_by_output(
    model: Model, entries: Mapping[str, LayerParams], data: Dataset, options: RunOptions
) -> dict[str, Floats]:
    """The weights of layers by name, as multiples of their scales; layers whose codes are all nearest are left out.

    `entries`: what the params file says of each layer. Layers with kernels above 1 are rounded if the model's pictures
    and the layer's inputs are square. Raises `NativeFailure`.
    """
    is_square = has_square_pictures(data.inputs)
    layers = tuple(
        op
        for op in model.convolutions
        if op.name in entries and _is_roundable(op) and (is_square or math.prod(op.shape[2:]) == 1)
    )
    moments: dict[str, Moments] = {}
    for tensors in layer_tensors(model, layers, data, options):
        for op in layers:
            values = tensors[op.name][0]
            read = None if values is None else _inputs_of_filters(op, values)
            if read is not None:
                moments[op.name] = moments.get(op.name, np.zeros(1)) + read @ read.swapaxes(1, 2)
    rounded = {}
    for op in layers:
        if op.name in moments:
            weight = entries[op.name].weight
            scales = np.array(weight.scales, np.float64).reshape(-1, 1)
            exact = model.decoded(op).reshape(op.shape[0], -1) / scales
            codes = choose_codes(exact, moments[op.name], weight.clamp_min, weight.clamp_max)
            if (codes != np.clip(np.rint(exact), weight.clamp_min, weight.clamp_max)).any():
                rounded[op.name] = np.asarray(codes * scales, np.float32)
    return rounded


def choose_codes(exact: Moments, moments: Moments, low: float, high: float) -> Moments:
    """The codes of filters, shape [filters, n], from weights in steps of their scale.

    `moments` are E[x x^T] of the inputs, shape [filters or 1, n, n], in any unit.
    """
    nearest = np.clip(np.rint(exact), low, high)
    other = np.clip(np.where(nearest > exact, np.floor(exact), np.ceil(exact)), low, high)
    codes, change = nearest.copy(), other - nearest
    filters = np.arange(len(codes))
    places = np.zeros_like(filters) if len(moments) == 1 else filters
    slope = np.einsum("fn,fnm->fm", codes - exact, moments) if len(moments) > 1 else (codes - exact) @ moments[0]
    curve = np.diagonal(moments, axis1=1, axis2=2)[places]
    for _ in range(min(_CHANGES, codes.shape[1])):
        gain = -(2 * change * slope + change**2 * curve)
        chosen = gain.argmax(1)
        active = filters[gain[filters, chosen] > 1e-12 * np.maximum(curve[filters, chosen], 1e-30)]
        if not len(active):
            break
        at = chosen[active]
        step = change[active, at]
        codes[active, at] += step
        slope[active] += step[:, None] * moments[places[active], at]
        change[active, at] = -step
    return codes


def has_square_pictures(inputs: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Whether there are inputs with four axes, all with equal height and width, channels first or last.

    Feature maps are read without their shapes: a map of 4 x 16 positions has as many as one of 8 x 8.
    """
    shapes = [array.shape for array in inputs.values() if array.ndim == 4]
    return bool(shapes) and all(shape[2] in (shape[1], shape[3]) for shape in shapes)


def _is_roundable(op: Op) -> bool:
    is_plain = op.kind == "Convolution" and op.group == 1
    size = op.weights[0].count // max(1, op.shape[0]) if op.weights and op.shape else 0
    return (is_plain or is_depthwise(op)) and is_rewritable(op) and 1 < size <= _LARGEST_FILTER


def _inputs_of_filters(op: Op, values: npt.NDArray[np.float32]) -> Moments | None:
    """The inputs that filters read, shape [channels if depthwise else 1, weights of a filter, positions]."""
    kernel = op.shape[2:]
    channels = op.shape[0] if is_depthwise(op) else op.weights[0].count // (op.shape[0] * math.prod(kernel))
    if values.shape[1] % channels:
        return None
    maps = values.reshape(len(values), channels, -1)
    if math.prod(kernel) == 1:
        windows = maps.swapaxes(0, 1).reshape(channels, 1, -1)
    else:
        side = math.isqrt(maps.shape[2])
        if side * side != maps.shape[2]:
            return None
        windows = _windows(op, maps.reshape(len(values), channels, side, side))
    if windows.shape[2] > _POSITIONS:
        windows = windows[:, :, :: -(-windows.shape[2] // _POSITIONS)]
    is_separate = is_depthwise(op)
    return np.asarray(windows if is_separate else windows.reshape(1, -1, windows.shape[2]), np.float64)


def _windows(op: Op, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The values under each weight of the kernel, without padding; shape [channels, kernel, positions]."""
    common = settings(op)
    height, width = op.shape[2:]
    down, across = int(str(common.get("dilateY", 1))), int(str(common.get("dilateX", 1)))
    rows, columns = maps.shape[2] - (height - 1) * down, maps.shape[3] - (width - 1) * across
    if rows < 1 or columns < 1:
        return np.zeros((maps.shape[1], height * width, 1), np.float32)
    parts = [
        maps[:, :, y * down : y * down + rows, x * across : x * across + columns]
        .swapaxes(0, 1)
        .reshape(maps.shape[1], -1)
        for y in range(height)
        for x in range(width)
    ]
    return np.stack(parts, 1)
