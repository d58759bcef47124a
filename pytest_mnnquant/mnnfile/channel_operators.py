"""What operators do to the channels of their inputs, for `channel_classes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from pytest_mnnquant.mnnfile.channel_joins import Classes
from pytest_mnnquant.mnnfile.model import Op
from pytest_mnnquant.mnnfile.settings import settings

#: The arithmetic and the activation of a BinaryOp: none, or a ReLU.
_SUMS: Final = frozenset({(0, 0), (0, 1), (1, 0), (1, 1)})
_PRODUCTS: Final = frozenset({(2, 0), (2, 1)})
#: Comparisons of a BinaryOp: greater, greater or equal, less, less or equal.
_COMPARISONS: Final = frozenset({10, 11, 12, 16})
_MEANS: Final = frozenset({0, 3, 4, 5})  # Reduction: sum, mean, maximum, minimum keep positive factors.
Constants = Mapping[int, Op]


def is_product(op: Op) -> bool:
    """Whether this multiplies two tensors, with a ReLU or without."""
    return op.kind == "BinaryOp" and _arithmetic(op) in _PRODUCTS


def is_sum(op: Op) -> bool:
    """Whether this adds or subtracts two tensors, with a ReLU or without."""
    # With coefficients an Eltwise is not a plain sum.
    is_eltwise = op.kind == "Eltwise" and settings(op).get("type") == 1
    is_plain = is_eltwise and op.parameters is not None and not op.parameters.span(1, 4)[1]
    return is_plain or (op.kind == "BinaryOp" and _arithmetic(op) in _SUMS)


def is_concatenation(op: Op) -> bool:
    """Whether this joins tensors along the channels."""
    return op.kind == "Concat" and settings(op).get("axis") == 1


def compares_with_zero(op: Op, constants: Constants) -> bool:
    """Whether only the signs of a tensor decide the result of a comparison."""
    if op.kind != "BinaryOp" or _arithmetic(op)[0] not in _COMPARISONS:
        return False
    given = [constants.get(tensor) for tensor in op.inputs]
    return any(item is not None and settings(item).get("values") == (0.0,) for item in given)


def is_mean(op: Op, constants: Constants, rank: int) -> bool:
    """Whether this is a mean (sum, maximum, minimum) over axes behind the channels that keeps the dimensions."""
    if op.kind != "Reduction":
        return False
    found = settings(op)
    given = constants.get(op.inputs[1]) if len(op.inputs) > 1 else None
    axes = found["dim"] if given is None else settings(given).get("values", ())
    spatial = isinstance(axes, tuple) and axes and all(axis % rank > 1 for axis in axes)
    return bool(spatial and found["keepDims"] and found["operation"] in _MEANS)


def squeezed_rank(op: Op, rank: int) -> int:
    """The dimensions after a Squeeze or an Unsqueeze of `rank` behind the channels; 0 for all other operators."""
    axes = settings(op).get("squeezeDims") if op.kind in ("Squeeze", "Unsqueeze") else None
    if not isinstance(axes, tuple) or not axes:
        return 0
    is_wider = op.kind == "Unsqueeze"
    most = rank + len(axes) if is_wider else rank
    if any(axis % most < 2 for axis in axes):  # It moves the channels.
        return 0
    return most if is_wider else rank - len(axes)


def slice_parts(op: Op, channels: Classes) -> list[Classes]:
    """The channels of each output of a slice along the channels; empty for other slices.

    MNN stores where parts begin, the sizes of the parts, or nothing if they are equal.
    """
    found, count = settings(op), len(op.outputs)
    points = found["slicePoints"]
    if found["axis"] != 1 or not isinstance(points, tuple) or len(channels) % (1 if points else count):
        return []
    if not points:
        return np.split(channels, count)
    ends = np.cumsum(points) if len(points) == count else np.array([*points, len(channels)])
    if len(ends) != count or ends[-1] != len(channels) or (np.diff(ends, prepend=0) <= 0).any():
        return []
    return np.split(channels, ends[:-1])


def _arithmetic(op: Op) -> tuple[object, object]:
    found = settings(op)
    return found.get("opType"), found.get("activationType")
