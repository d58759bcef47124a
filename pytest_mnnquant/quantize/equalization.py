"""Cross-layer equalization: the channels of a tensor get similar ranges, and the float model computes the same.

A tensor of an int8 model has one scale. If one channel is 100 times larger than the others, these have two codes left.
Dividing an output channel of a layer by a factor, and multiplying the weights that read it, changes the ranges but not
the function (`mnnfile.channel_classes`; Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.1). The paper
takes both ranges from the weights. Here the range of a channel is its largest value in calibration, and the factor is
sqrt(range of the channel / range of the weights that read it), each relative to the largest of its tensor and filter.

Factors are powers of 2, so that every product and sum of the float model is the same number with another exponent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.channel_classes import FIXED, ChannelClasses, channel_classes, is_depthwise
from pytest_mnnquant.mnnfile.model import Model, Op, read_model
from pytest_mnnquant.mnnfile.rewriting import biases, with_values
from pytest_mnnquant.mnnfile.storage import Floats
from pytest_mnnquant.quantize.conversion_proof import PROOF_SAMPLES, compare_outputs, is_proven
from pytest_mnnquant.quantize.layer_inputs import layer_tensors
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions

Factors = npt.NDArray[np.float64]
_ROUNDS: Final = 4
_LARGEST_EXPONENT: Final = 12
_TINY: Final = 1e-12


@dataclass(frozen=True)
class Equalized:
    """The rewritten float model; the source's if nothing changed. `layers` are those whose weights changed.

    `is_refused`: the rewritten model computed something else, so it was not used.
    """

    model: Model
    layers: tuple[str, ...] = ()
    is_refused: bool = False


def equalize(model: Model, data: Dataset, options: RunOptions, path: Path) -> Equalized:
    """Write the equalized float model to `path`, and compare its outputs with those of `model` on some of the data.

    Raises `NativeFailure`.
    """
    classes = channel_classes(model)
    factors = find_factors(model, classes, _channel_ranges(model, classes, data, options))
    weights, shifts = scaled_values(model, classes, factors)
    if not weights:
        return Equalized(model)
    path.write_bytes(with_values(model, weights, shifts))
    made, samples = read_model(path), data.first(PROOF_SAMPLES).inputs
    expected, computed = (run(item, samples, options).outputs for item in (model, made))
    if not is_proven(compare_outputs(expected, computed, "the equalized float model")):
        path.unlink()
        return Equalized(model, tuple(weights), is_refused=True)
    return Equalized(made, tuple(weights))


def find_factors(model: Model, classes: ChannelClasses, ranges: Mapping[int, Factors]) -> Factors:
    """The factor of each class, a power of 2. `ranges`: the largest magnitude of each channel, by tensor index."""
    count = max((int(ids.max(initial=FIXED)) for ids in classes.tensors.values()), default=FIXED) + 1
    factors = np.ones(count)
    for _ in range(_ROUNDS):
        signal, reading = np.zeros(count), np.zeros(count)
        for tensor, seen in ranges.items():
            ids = classes.tensors[tensor]
            scaled = seen / factors[ids]
            np.maximum.at(signal, ids, scaled / max(float(scaled.max(initial=0)), _TINY))
        for op in classes.layers:
            read = classes.tensors.get(op.inputs[0])
            if read is not None and not is_depthwise(op):
                np.maximum.at(reading, read, _columns(model, op, factors[read]))
        # Nothing reads the channel but depthwise filters, which have a scale of their own: it may take all codes.
        wanted = np.where(reading > 0, np.sqrt(signal / np.maximum(reading, _TINY)), signal)
        usable = (signal > _TINY) & (wanted > 0)
        usable[FIXED] = False
        factors = np.where(usable, factors * np.where(usable, wanted, 1), factors)
    return _rounded(factors, np.isin(np.arange(count), classes.free))


def _columns(model: Model, op: Op, factors: Factors) -> Factors:
    """The largest weight that reads each input channel, relative to the largest of its filter; [input channels]."""
    filters = np.abs(model.decoded(op)).reshape(op.shape[0], len(factors), -1).max(2) * factors
    largest = filters.max(1, keepdims=True)
    return np.asarray((filters / np.maximum(largest, _TINY)).max(0), np.float64)


def _rounded(factors: Factors, free: npt.NDArray[np.bool_]) -> Factors:
    exponents = np.clip(np.rint(np.log2(np.maximum(factors, _TINY))), -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    return np.where(free, np.exp2(exponents), 1.0)


def scaled_values(
    model: Model, classes: ChannelClasses, factors: Factors
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Weights and biases of the layers that change, by name: w[o, i] * factor[i] / factor[o], and b[o] / factor[o]."""
    weights, shifts = {}, {}
    for op in classes.layers:
        after = factors[classes.tensors[op.outputs[0]]]
        ids = classes.tensors.get(op.inputs[0])
        before = np.ones(1) if ids is None else factors[ids]
        if (after == 1).all() and (before == 1).all():
            continue
        given = model.decoded(op)
        scale = (before / after)[:, None, None] if is_depthwise(op) else (before[None, :] / after[:, None])[:, :, None]
        shaped = given.reshape(op.shape[0], 1 if ids is None or is_depthwise(op) else len(before), -1)
        weights[op.name] = (shaped * scale).astype(np.float32).reshape(given.shape)
        shifts[op.name] = (biases(op) / after).astype(np.float32)
    return weights, shifts


def _channel_ranges(model: Model, classes: ChannelClasses, data: Dataset, options: RunOptions) -> dict[int, Factors]:
    """The largest magnitude of each channel of the layers' inputs and outputs, by tensor index."""
    ranges: dict[int, Factors] = {}
    for tensors in layer_tensors(model, classes.layers, data, options):
        for op in classes.layers:
            for tensor, values in zip((op.inputs[0], op.outputs[0]), tensors[op.name], strict=True):
                ids = classes.tensors.get(tensor)
                if ids is None or values is None:
                    continue
                seen = np.abs(values).reshape(len(values), len(ids), -1).max((0, 2)).astype(np.float64)
                ranges[tensor] = np.maximum(ranges.get(tensor, np.zeros(len(ids))), seen)
    return ranges
