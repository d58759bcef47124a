"""Cross-layer equalization: the channels of a tensor get similar ranges, and the float model computes the same.

A tensor of an int8 model has one scale. If one channel is 100 times larger than the others, these have two codes left.
Dividing an output channel of a layer by a factor, and multiplying the weights that read it, changes the ranges but not
the function (`mnnfile.channel_classes`; Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.1). The paper
takes both ranges from the weights. Here the range of a channel is twice its largest value in calibration, at most the
largest of its tensor, and the factor is sqrt(range of the channel / range of the weights that read it), each relative
to the largest of its tensor and filter.

Factors are powers of 2, so that every product and sum of the float model is the same number with another exponent.

Operators that are not proportional (hard-swish, sigmoid) fix the channels before and after them. With `scaled`, a
multiplication by a constant per channel is added on such a side (`mnnfile.products`), if the channels of the tensor
differ enough to gain from that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.channel_classes import (
    ChannelClasses,
    channel_classes,
    filter_inputs,
    is_depthwise,
    scaling_places,
)
from pytest_mnnquant.mnnfile.channel_joins import FIXED
from pytest_mnnquant.mnnfile.model import Model, Op, read_model
from pytest_mnnquant.mnnfile.products import Product, with_products
from pytest_mnnquant.mnnfile.rewriting import biases, with_values
from pytest_mnnquant.mnnfile.storage import Floats
from pytest_mnnquant.quantize.conversion_proof import PROOF_SAMPLES, compare_outputs, is_proven
from pytest_mnnquant.quantize.layer_inputs import layer_tensors
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions

Factors = npt.NDArray[np.float64]
_ROUNDS: Final = 4
_LARGEST_EXPONENT: Final = 12
_TINY: Final = 1e-12
#: The factor by which other data may exceed a channel's range in calibration. Without it, every channel fills the
#: codes of its tensor, and where one of them exceeds what calibration saw, it is clipped.
_HEADROOM: Final = 2.0
#: The mean of the bits that a multiplication must give to the channels of a tensor.
_FEWEST_BITS: Final = 0.5
#: The size of all multiplications, as a share of that of the int8 weights; or in bytes, for small models.
_LARGEST_SHARE: Final = 0.025
_SMALL: Final = 4096


@dataclass(frozen=True)
class Equalized:
    """The rewritten float model; the source's if nothing changed. `layers` are those whose weights changed.

    `is_refused`: the rewritten model computed something else, so it was not used.
    """

    model: Model
    layers: tuple[str, ...] = ()
    is_refused: bool = False


def equalize(model: Model, data: Dataset, options: RunOptions, path: Path, *, scaled: bool = False) -> Equalized:
    """Write the equalized float model to `path`, and compare its outputs with those of `model` on some of the data.

    `scaled`: multiplications are added where they are needed. Raises `NativeFailure`.
    """
    plain = _with_products(model, data, options, path) if scaled else model
    classes = channel_classes(plain)
    factors = find_factors(plain, classes, _channel_ranges(plain, classes, data, options))
    weights, shifts = scaled_values(plain, classes, factors)
    if not weights:
        path.unlink(missing_ok=True)
        return Equalized(model)
    path.write_bytes(with_values(plain, weights, shifts, _constants(classes, factors)))
    made, samples = read_model(path), data.first(PROOF_SAMPLES).inputs
    expected, computed = (run(item, samples, options).outputs for item in (model, made))
    names = (*weights, *(op.name for op in classes.products))
    if not is_proven(compare_outputs(expected, computed, "the equalized float model")):
        path.unlink()
        return Equalized(model, names, is_refused=True)
    return Equalized(made, names)


def _with_products(model: Model, data: Dataset, options: RunOptions, path: Path) -> Model:
    """The model with multiplications by 1, written to `path`, wherever factors of their channels save enough bits."""
    places = scaling_places(model)
    if not places:
        return model
    content = model.path.read_bytes()
    path.write_bytes(with_products(content, places))
    tried = read_model(path)
    classes = channel_classes(tried)
    try:
        factors = find_factors(tried, classes, _channel_ranges(tried, classes, data, options))
    except NativeFailure:  # MNN can't run the model with these multiplications.
        return model
    useful = _most_useful(places, tried, classes, factors)
    if not useful:
        return model
    path.write_bytes(with_products(content, useful))
    return read_model(path)


def _most_useful(places: Sequence[Product], model: Model, classes: ChannelClasses, factors: Factors) -> list[Product]:
    """The multiplications that give the channels of their tensors most bits per byte, within the allowed size."""
    made = {op.input_names[0]: op for op in classes.products}
    bits = {place: _saved_bits(classes, factors, made[place.name]) for place in places if place.name in made}
    left = max(_SMALL, _LARGEST_SHARE * sum(op.weight_count for op in model.layers))
    chosen = []
    for place in sorted(bits, key=lambda place: bits[place] / place.size, reverse=True):
        if bits[place] >= _FEWEST_BITS and place.size <= left:
            chosen.append(place)
            left -= place.size
    return chosen


def _saved_bits(classes: ChannelClasses, factors: Factors, product: Op) -> float:
    """The mean of the bits that channels get on the side of a multiplication that was fixed."""
    sides = (classes.tensors.get(tensor) for tensor in (product.inputs[0], product.outputs[0]))
    known = (factors[ids] for ids in sides if ids is not None)
    return max(float(-np.log2(side / side.max()).mean()) for side in known)


def _constants(classes: ChannelClasses, factors: Factors) -> dict[str, Floats]:
    """The constants of the added multiplications: what undoes the factor before, and gives the one after."""
    constants = {}
    for op in classes.products:
        before, after = classes.tensors.get(op.inputs[0]), factors[classes.tensors[op.outputs[0]]]
        constants[op.input_names[1]] = np.asarray((1.0 if before is None else factors[before]) / after, np.float32)
    return constants


def find_factors(model: Model, classes: ChannelClasses, ranges: Mapping[int, Factors]) -> Factors:
    """The factor of each class, a power of 2. `ranges`: the largest magnitude of each channel, by tensor index."""
    count = max((int(ids.max(initial=FIXED)) for ids in classes.tensors.values()), default=FIXED) + 1
    factors = np.ones(count)
    for _ in range(_ROUNDS):
        signal, reading = np.zeros(count), np.zeros(count)
        for tensor, seen in ranges.items():
            ids = classes.tensors[tensor]
            scaled = seen / factors[ids]
            np.maximum.at(signal, ids, np.minimum(_HEADROOM * scaled / max(float(scaled.max(initial=0)), _TINY), 1))
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
    places = filter_inputs(op)
    filters = np.abs(model.decoded(op)).reshape(*places.shape, -1).max(2) * factors[places]
    columns = np.zeros(len(factors))
    np.maximum.at(columns, places, filters / np.maximum(filters.max(1, keepdims=True), _TINY))
    return columns


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
        given, places = model.decoded(op), filter_inputs(op)
        scale = (before if ids is None else before[places]) / after[:, None]
        weights[op.name] = (
            (given.reshape(*places.shape, -1) * scale[:, :, None]).astype(np.float32).reshape(given.shape)
        )
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
