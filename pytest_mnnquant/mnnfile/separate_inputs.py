"""Gives operators of a model file a separate input tensor: an exact copy of the tensor that they read.

The copy can have another quantization than the tensor, which other operators read too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.front import (
    INPUTS,
    NAME,
    NET_OFFSETS,
    OP_OFFSETS,
    OPERATORS,
    TENSOR_NAMES,
    TENSOR_NUMBER,
    Front,
    referred_positions,
)

_NC4HW4: Final = 2


def with_separate_inputs(data: bytes, copies: Mapping[str, str]) -> bytes:
    """A model file's bytes, in which operators of the main graph read a copy of their first input.

    `copies`: the name of the copy, by the name of the operator. The copies are the last tensors, in the order of the
    operators. A copy has the layout NC4HW4, which the operator must read, and MNN makes it with a Raster. Raises
    `BadModel`.
    """
    net = Table.root(memoryview(data))
    operators = list(net.tables(OPERATORS))
    changed = [table for table in operators if table.string(NAME) in copies]
    names = referred_positions(net, TENSOR_NAMES)
    front = Front(data)
    root = front.copy_table(0, net, NET_OFFSETS)
    entries = iter(front.add_vector(root[OPERATORS], len(operators) + len(changed)))
    name_entries = front.add_vector(root[TENSOR_NAMES], len(names) + len(changed))
    if TENSOR_NUMBER in root:
        front.write("<i", root[TENSOR_NUMBER], len(name_entries))
    for entry, name in zip(name_entries, names, strict=False):
        front.refer_to_old(entry, name)
    copied = iter(range(len(names), len(name_entries)))
    for operator in operators:
        title, entry = operator.string(NAME), next(entries)
        if title not in copies:
            front.refer_to_old(entry, operator.position)
            continue
        tensor, (original, *others) = next(copied), operator.ints(INPUTS)
        _add_copying(front, entry, original, (tensor, name_entries[tensor]), copies[title])
        fields = front.copy_table(next(entries), operator, OP_OFFSETS)
        front.add_ints(fields[INPUTS], (tensor, *others))
    return front.joined()


def _add_copying(front: Front, entry: int, original: int, copied: tuple[int, int], name: str) -> None:
    """Add an operator that copies a tensor to another."""
    parameters = front.add_operator(entry, ("ConvertTensor", "TensorConvertInfo"), (original,), copied, name)
    # TensorConvertInfo: source 0, destination 1.
    front.add_table(parameters, (4, 5), struct.pack("<iBBxx", 0, _NC4HW4, _NC4HW4))
