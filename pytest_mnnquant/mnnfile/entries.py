"""Which entry of a params file belongs to which layer of a model: by name as MNN does it, else by the weights."""

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
# Learned scales differ from max |w| / 127, so they are compared by their pattern over at least so many channels.
_PATTERN_CHANNELS: Final = 8
_PATTERN: Final = 0.98


def bind_by_name(params: Params, model: Model) -> tuple[list[tuple[LayerParams, Op]], list[LayerParams]]:
    """The entries that MNN's converter finds a layer for, each with its layer; and those that name no tensor."""
    by_tensor = {op.output_names[0]: op for op in model.layers if op.is_convolution and op.output_names}
    bound, lost = [], []
    # Among entries with activations, those without give the bits of single operators: they bind nothing.
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
    """For each entry the layer whose own weights its weight scales were made for; each layer is given once.

    MNN splits a grouped convolution into one layer a group: then it is these, in order. Empty where there is none.
    """
    entries, bound = list(entries), []
    free = [(ops, np.concatenate([_scales(base, op) for op in ops])) for ops in _whole(layers)] if entries else []
    for entry in entries:
        unlike = [_unlike(np.array(entry.weight.scales), expected) for _, expected in free]
        best = int(np.argmin(unlike)) if unlike else 0
        bound.append((entry, free.pop(best)[0] if unlike and np.isfinite(unlike[best]) else ()))
    return bound


def _whole(layers: Iterable[Op]) -> list[tuple[Op, ...]]:
    """Layers one by one, but the groups of a grouped convolution together."""
    groups: dict[str, tuple[Op, ...]] = {}
    for op in layers:
        stem, group, _ = op.name.rpartition(_GROUP)
        key = stem if group else f"{op.name} {len(groups)}"
        groups[key] = (*groups.get(key, ()), op)
    return list(groups.values())


def layers_of(params: Params, model: Model) -> list[tuple[LayerParams, tuple[Op, ...]]]:
    """Each entry with its layer (or the groups of it) in the float model `model`: by name, else by the weights."""
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

    An entry of a grouped convolution becomes one a group. Convert with it from `.mnn` to `.mnn`. Entries whose layer is
    not found stay as they are.
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
    """The weight scales that a calibration takes of a layer: max |w| / 127 a channel. Empty for unreadable weights."""
    try:
        return np.array(np.abs(base.decoded(layer)).max(1) / 127, dtype=np.float64)
    except BadModel:
        return np.empty(0)


def _unlike(scales: Floats, expected: Floats) -> float:
    """How far weight scales are from those of a layer's own weights; infinite: they are not these."""
    if len(scales) != len(expected) or not len(scales):
        return np.inf
    distance = float(np.linalg.norm(scales - expected) / max(float(np.linalg.norm(expected)), 1e-12))
    if np.allclose(scales, expected, rtol=_RELATIVE, atol=_ABSOLUTE):
        return distance
    if len(scales) < _PATTERN_CHANNELS or scales.std() == 0 or expected.std() == 0:
        return np.inf
    return distance if np.corrcoef(scales, expected)[0, 1] > _PATTERN else np.inf
