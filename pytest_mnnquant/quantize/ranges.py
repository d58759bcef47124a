"""Calibration: the range of each tensor of a float model, by an observer on the calibration data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.quantize.calibration import Range
from pytest_mnnquant.quantize.observers import BINS, Histogram, needs_histogram, take_range
from pytest_mnnquant.recipes.recipe import Observer
from pytest_mnnquant.runtime.inference import tensor_histograms, tensor_ranges
from pytest_mnnquant.runtime.options import RunOptions

if TYPE_CHECKING:
    import torch

    from pytest_mnnquant.quantize.tensor_binding import Binding
    from pytest_mnnquant.quantize.torch_watch import Value

MINMAX: Final = Observer()
Batches = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibrated:
    """The result of one calibration, by tensor index. `batches` holds the range of each batch, shape [batches, 2].

    `network` is the calibrated network, in eval mode, and `drift` the largest change of a BatchNorm in it, in units of
    its standard deviation (0: unchanged). `from_runtime` lists tensors whose range comes from MNN's float run, since
    no PyTorch value matches them.
    """

    ranges: dict[int, Range]
    batches: dict[int, Batches]
    network: torch.nn.Module | None = None
    drift: float = 0.0
    from_runtime: tuple[int, ...] = ()


def calibrate_runtime(
    model: Model,
    ops: tuple[Op, ...],
    data: Dataset,
    options: RunOptions,
    observer: Observer = MINMAX,
    only: set[int] | None = None,
) -> Calibrated:
    """The ranges of each operator's first input and output, from MNN's run of the float model.

    Tensors of operators that did not run are missing. `only` names the tensors to observe; None: all.
    """
    if not ops:  # Such as a model whose layers are all in the bodies of conditions.
        return Calibrated({}, {})
    extremes = tensor_ranges(model, ops, data.inputs, options)
    places = {
        tensor: (number, side)
        for number, op in enumerate(ops)
        for side, tensor in enumerate((op.inputs[0], op.outputs[0]))
        if (only is None or tensor in only) and np.isfinite(extremes[:, number, side]).all()
    }
    batches = {tensor: extremes[:, number, side] for tensor, (number, side) in places.items()}
    histograms: dict[int, Histogram] = {}
    if needs_histogram(observer) and places:
        bounds = np.zeros((len(ops), 2, 2))
        for tensor, (number, side) in places.items():
            bounds[number, side] = _span(batches[tensor])
        counts = tensor_histograms(model, ops, bounds, BINS, data.inputs, options)
        for tensor, (number, side) in places.items():
            histograms[tensor] = Histogram(*_span(batches[tensor]), counts[number, side])
    return Calibrated(_take_ranges(observer, batches, histograms), batches)


def calibrate_torch(binding: Binding, data: Dataset, mode: str, observer: Observer, options: RunOptions) -> Calibrated:
    """Run the calibration data through the bound network in eval mode, or through a copy of it in train mode.

    In train mode BatchNorm uses and updates its statistics, as in a user's calibration: such a pipeline ships the copy
    in the result.
    """
    from pytest_mnnquant.quantize.torch_ranges import collect_extremes, collect_histograms

    network, training = binding.network, mode == "train"
    calibrated = copy.deepcopy(network).train() if training else network
    exits = None if training else binding.exits
    extremes = collect_extremes(
        calibrated, {value for value in binding.values.values() if value is not None}, data, exits
    )
    shapes: dict[Value, Histogram] = {}
    if needs_histogram(observer):
        # In train mode the first pass has changed the statistics, so the second uses a fresh copy.
        fresh = copy.deepcopy(network).train() if training else network
        shapes = collect_histograms(fresh, {value: _span(rows) for value, rows in extremes.items()}, data, exits)
    bound = {tensor: value for tensor, value in binding.values.items() if value is not None and value in extremes}
    batches = {tensor: extremes[value] for tensor, value in bound.items()}
    seen = {tensor: shapes[value] for tensor, value in bound.items() if shapes}
    ranges = _take_ranges(observer, batches, seen)
    unbound = tuple(tensor for tensor in binding.values if tensor not in bound)
    if unbound:
        rest = calibrate_runtime(binding.model, binding.ops, data, options, observer, only=set(unbound))
        ranges, batches = ranges | rest.ranges, batches | rest.batches
    drift = batchnorm_drift(dict(network.named_buffers()), dict(calibrated.named_buffers()))
    return Calibrated(ranges, batches, calibrated.eval(), drift, unbound)


def _take_ranges(
    observer: Observer, batches: Mapping[int, Batches], histograms: Mapping[int, Histogram]
) -> dict[int, Range]:
    return {tensor: take_range(observer, rows, histograms.get(tensor)) for tensor, rows in batches.items()}


def _span(batches: Batches) -> tuple[float, float]:
    return float(batches[:, 0].min()), float(batches[:, 1].max())


def batchnorm_drift(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> float:
    """The largest change of a BatchNorm's mean or standard deviation, in units of the standard deviation before.

    Both are the buffers of a model by name.
    """
    largest = 0.0
    for name, mean in before.items():
        spread = name.removesuffix("mean") + "var"
        if name.endswith("running_mean") and {name, spread} <= after.keys():
            deviation = before[spread].sqrt().clamp_min(1e-12)
            for change in (after[name] - mean, after[spread].sqrt() - before[spread].sqrt()):
                largest = max(largest, float((change.abs() / deviation).max()))
    return largest
