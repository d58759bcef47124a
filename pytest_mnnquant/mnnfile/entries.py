"""Assigns the entries of a params file to the layers of a model: by name as MNN does, else by the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.model import BadModel, Model, Op
from pytest_mnnquant.mnnfile.params import LayerParams, Params

Floats = npt.NDArray[np.float64]
#: MNN adds this to the name of a Linear's tensor, and its converter accepts a params entry without it.
_LINEAR_SUFFIX: Final = "__matmul_converted"
#: Between the name of a grouped convolution and the number of the group.
_GROUP: Final = "__group__"
# mnncompress adds 1e-6 to weight scales, before a BatchNorm is folded into them.
_RELATIVE, _ABSOLUTE = 2e-3, 3e-6
# Learned scales differ from max |w| / 127, so their pattern is compared, over at least this number of channels.
_PATTERN_CHANNELS: Final = 8
_PATTERN: Final = 0.98


def bind_by_name(params: Params, model: Model) -> tuple[list[tuple[LayerParams, Op]], list[LayerParams]]:
    """The entries that MNN's converter assigns to a layer, each with its layer; and the entries without a tensor."""
    # MNN numbers the tensors of a loop's body from the start, so one may have the name of a tensor of the main graph.
    layers = sorted(model.layers, key=lambda op: not op.subgraph)
    by_tensor = {op.output_names[0]: op for op in layers if op.is_convolution and op.output_names}
    bound, lost = [], []
    # If some entries have activations, those without only give the bits of single operators and are not matched.
    for entry in [entry for entry in params.layers if entry.output is not None] or params.layers:
        op = by_tensor.get(entry.name) or by_tensor.get(entry.name + _LINEAR_SUFFIX)
        if op is not None:
            bound.append((entry, op))
        else:
            lost.append(entry)
    return bound, lost


def bind_by_weights(
    entries: Iterable[LayerParams], base: Model, layers: Sequence[Op]
) -> list[tuple[LayerParams, tuple[Op, ...]]]:
    """For each entry, the layer whose weights match its weight scales; each layer is used once.

    MNN splits a grouped convolution into one layer per group: then it is these layers, in order. Empty without a match.
    """
    entries, bound = list(entries), []
    free = [(ops, np.concatenate([_scales(base, op) for op in ops])) for ops in _whole(layers)] if entries else []
    for entry in entries:
        unlike = [_unlike(np.array(entry.weight.scales), expected) for _, expected in free]
        best = int(np.argmin(unlike)) if unlike else 0
        bound.append((entry, free.pop(best)[0] if unlike and np.isfinite(unlike[best]) else ()))
    return bound


def _whole(layers: Iterable[Op]) -> list[tuple[Op, ...]]:
    """The layers, with the groups of a grouped convolution together."""
    groups: dict[str, tuple[Op, ...]] = {}
    for op in layers:
        stem, group, _ = op.name.rpartition(_GROUP)
        key = stem if group else f"{op.name} {len(groups)}"
        groups[key] = (*groups.get(key, ()), op)
    return list(groups.values())


def layers_of(params: Params, model: Model) -> list[tuple[LayerParams, tuple[Op, ...]]]:
    """Each entry with its layer (or its groups) in the float model `model`: by name, else by the weights."""
    bound, lost = bind_by_name(params, model)
    taken = {id(op) for _, op in bound}
    free = [op for op in model.convolutions if id(op) not in taken]
    return [*((entry, (op,)) for entry, op in bound), *bind_by_weights(lost, model, free)]


def without(params: Params, model: Model, names: Collection[str]) -> Params:
    """The params without the entries of the named layers of the float model `model`, which then stay float."""
    dropped = {id(entry) for entry, ops in layers_of(params, model) if any(op.name in names for op in ops)}
    return dataclasses.replace(params, layers=tuple(entry for entry in params.layers if id(entry) not in dropped))


def repaired(params: Params, model: Model) -> Params:
    """The same params with the names under which MNN's converter finds each layer of the float model `model`.

    An entry of a grouped convolution becomes one entry per group. Use it to convert from `.mnn` to `.mnn`. Entries
    without a matching layer stay unchanged.
    """
    layers = {id(entry): ops for entry, ops in layers_of(params, model)}
    entries = [new for entry in params.layers for new in _renamed(entry, layers.get(id(entry), ()))]
    return dataclasses.replace(params, layers=tuple(entries))


def _renamed(entry: LayerParams, ops: tuple[Op, ...]) -> list[LayerParams]:
    if entry.output is None or not ops:
        return [entry]
    size = len(entry.weight.scales) // len(ops)
    return [
        dataclasses.replace(
            entry,
            output=dataclasses.replace(entry.output, name=op.output_names[0]),
            weight=dataclasses.replace(entry.weight, scales=entry.weight.scales[group * size : (group + 1) * size])
            if len(ops) > 1
            else entry.weight,
        )
        for group, op in enumerate(ops)
    ]


def _scales(base: Model, layer: Op) -> Floats:
    """The weight scales of a layer in a calibration: max |w| / 127 per channel. Empty for unreadable weights."""
    try:
        return np.array(np.abs(base.decoded(layer)).max(1) / 127, dtype=np.float64)
    except BadModel:
        return np.empty(0)


def _unlike(scales: Floats, expected: Floats) -> float:
    """The distance of weight scales from those of a layer's weights; infinite if they do not match."""
    if len(scales) != len(expected) or not len(scales):
        return np.inf
    distance = float(np.linalg.norm(scales - expected) / max(float(np.linalg.norm(expected)), 1e-12))
    if np.allclose(scales, expected, rtol=_RELATIVE, atol=_ABSOLUTE):
        return distance
    if len(scales) < _PATTERN_CHANNELS or scales.std() == 0 or expected.std() == 0:
        return np.inf
    return distance if np.corrcoef(scales, expected)[0, 1] > _PATTERN else np.inf
