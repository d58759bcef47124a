"""Which layers read the values of an input unchanged: through operators that only move values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.pooling import SHAPE_ONLY

_MOVING: Final = SHAPE_ONLY | {
    *("Concat", "Pack", "Unpack", "Slice", "SliceTf", "StridedSlice", "Gather", "GatherV2", "Padding", "ExpandDims"),
    *("Cast", "Identity", "Raster", "BroadcastTo"),
}


def layers_of_inputs(model: Model, layers: Iterable[Op]) -> dict[str, str]:
    """The first of `layers` that reads the values of each input, by the input's name."""
    producers = {output: op for op in model.ops if not op.subgraph for output in op.outputs}
    names = {spec.name for spec in model.inputs}
    found: dict[str, str] = {}
    for layer in layers:
        for tensor in _sources(layer.inputs[0], producers):
            if model.tensor_names[tensor] in names:
                found.setdefault(model.tensor_names[tensor], layer.name)
    return found


def _sources(tensor: int, producers: dict[int, Op]) -> set[int]:
    """The tensors whose values a tensor holds."""
    reached, open_tensors = set[int](), [tensor]
    while open_tensors:
        current = open_tensors.pop()
        if current in reached:
            continue
        reached.add(current)
        op = producers.get(current)
        if op is not None and op.kind in _MOVING:
            open_tensors.extend(op.inputs)
    return reached
