"""Adds multiplications by a constant per channel to a model file; with ones, the model computes the same."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.front import (
    INPUTS,
    NET_OFFSETS,
    OP_OFFSETS,
    OPERATORS,
    OUTPUTS,
    TENSOR_NAMES,
    TENSOR_NUMBER,
    Front,
    referred_positions,
)

#: The ends of the names of the constants and of the products.
FACTORS: Final = "__factors"
PRODUCT: Final = "__scaled"
_MULTIPLY: Final = 2
#: The bytes of both operators without names and values.
_TABLES: Final = 256


@dataclass(frozen=True)
class Product:
    """A multiplication of a tensor (by index and name) with `channels`, and the operators that read the product.

    `readers` are given by their first outputs.
    """

    tensor: int
    name: str
    channels: int
    readers: frozenset[int]

    @property
    def size(self) -> int:
        """About the bytes that it adds to a file."""
        return 4 * self.channels + 2 * len(self.name) + _TABLES


def with_products(data: bytes, products: Iterable[Product]) -> bytes:
    """A model file's bytes, in which operators of the main graph read a product of a tensor with ones.

    A product is the operator `NAME__scaled`, its constant `NAME__factors` with shape [1, channels, 1, 1]; both are in
    front of the first reader. Their tensors are the last ones. Raises `BadModel`.
    """
    net = Table.root(memoryview(data))
    operators = list(net.tables(OPERATORS))
    names = referred_positions(net, TENSOR_NAMES)
    first = _by_first_reader([_first_output(table) for table in operators], products)
    count = sum(map(len, first.values()))
    front = Front(data)
    root = front.copy_table(0, net, NET_OFFSETS)
    entries = iter(front.add_vector(root[OPERATORS], len(operators) + 2 * count))
    name_entries = front.add_vector(root[TENSOR_NAMES], len(names) + 2 * count)
    if TENSOR_NUMBER in root:
        front.write("<i", root[TENSOR_NUMBER], len(name_entries))
    for entry, name in zip(name_entries, names, strict=False):
        front.refer_to_old(entry, name)
    tensors = iter(range(len(names), len(name_entries)))
    replaced: dict[tuple[int, int], int] = {}
    for operator in operators:
        output, reads = _first_output(operator), operator.ints(INPUTS)
        for product in first.get(output, ()):
            factors, scaled = next(tensors), next(tensors)
            _add_ones(front, next(entries), product, (factors, name_entries[factors]))
            _add_product(front, next(entries), product, factors, (scaled, name_entries[scaled]))
            replaced |= {(reader, product.tensor): scaled for reader in product.readers}
        changed = tuple(replaced.get((output, tensor), tensor) for tensor in reads)
        entry = next(entries)
        if changed == reads:
            front.refer_to_old(entry, operator.position)
        else:
            front.add_ints(front.copy_table(entry, operator, OP_OFFSETS)[INPUTS], changed)
    return front.joined()


def _first_output(operator: Table) -> int:
    return next(iter(operator.ints(OUTPUTS)), -1)


def _by_first_reader(outputs: Sequence[int], products: Iterable[Product]) -> Mapping[int, list[Product]]:
    places = {output: place for place, output in enumerate(outputs)}
    first: dict[int, list[Product]] = {}
    for product in products:
        first.setdefault(min(product.readers, key=lambda output: places[output]), []).append(product)
    return first


def _add_ones(front: Front, entry: int, product: Product, tensor: tuple[int, int]) -> None:
    parameters = front.add_operator(entry, ("Const", "Blob"), (), tensor, product.name + FACTORS)
    # Blob: dimensions 0, float32 values 7; its other fields say float32 in the layout NCHW by default.
    blob = front.add_table(parameters, (4, 0, 0, 0, 0, 0, 0, 8), bytes(12))
    front.add_ints(blob + 4, (1, product.channels, 1, 1))
    front.add_floats(blob + 8, (1.0,) * product.channels)


def _add_product(front: Front, entry: int, product: Product, factors: int, scaled: tuple[int, int]) -> None:
    reads = (product.tensor, factors)
    parameters = front.add_operator(entry, ("BinaryOp", "BinaryOp"), reads, scaled, product.name + PRODUCT)
    front.add_table(parameters, (4,), struct.pack("<ii", 0, _MULTIPLY))  # BinaryOp: operation 0.
