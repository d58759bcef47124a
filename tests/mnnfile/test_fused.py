"""Layers inside fused operators are read as operators of their own. The files are written here: no released converter
fuses them yet.
"""

from __future__ import annotations

from pathlib import Path

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import pytest

from pytest_mnnquant.llm.graph import read_graph
from pytest_mnnquant.llm.matrix import decode_rows
from pytest_mnnquant.mnnfile.model import read_model

ROWS, COLUMNS = 8, 4
Q, K, V = (f"/layers.0/self_attn/{name}_proj/Linear" for name in "qkv")
GATE, UP = (f"/layers.0/mlp/{name}_proj/Linear" for name in ("gate", "up"))


class Writer:
    """Writes tables of `.mnn` files, fields by slot."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def numbers(self, values: list[int], size: int = 4) -> int:
        self.builder.StartVector(size, len(values), size)
        for value in reversed(values):
            self.builder.PrependInt64(value) if size == 8 else self.builder.PrependInt32(value)
        return int(self.builder.EndVector())

    def tables(self, offsets: list[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def table(self, slots: int, offsets: dict[int, int], ints: dict[int, int], bytes_: dict[int, int]) -> int:
        self.builder.StartObject(slots)
        for slot, offset in offsets.items():
            self.builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, value in ints.items():
            self.builder.PrependInt32Slot(slot, value, 0)
        for slot, value in bytes_.items():
            self.builder.PrependUint8Slot(slot, value, 0)
        return int(self.builder.EndObject())

    def convolution(self, offset: int) -> int:
        size = 4 * ROWS * COLUMNS
        common = self.table(12, {}, {10: ROWS, 11: COLUMNS}, {})
        external = self.numbers([offset, size, 4 * ROWS], 8)
        return self.table(7, {0: common, 6: external}, {}, {})

    def norm(self, offset: int) -> int:
        external = self.numbers([offset, 4 * COLUMNS, 4 * COLUMNS], 8)
        return self.table(7, {5: external}, {}, {})

    def operator(self, name: str, kind: int, union: int, parameters: int, outputs: list[int]) -> int:
        text, places = self.builder.CreateString(name), self.numbers(outputs)
        return self.table(8, {2: parameters, 3: text, 4: places}, {5: kind}, {1: union})

    def net(self, operators: list[int], tensors: list[str], path: Path) -> None:
        names = self.tables([self.builder.CreateString(name) for name in tensors])
        self.builder.Finish(self.table(12, {3: self.tables(operators), 7: names}, {}, {}))
        path.write_bytes(bytes(self.builder.Output()))


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    """q, k and v with their norm in one operator, gate and up in another one, each with weights of its own."""
    writer, path, step = Writer(), tmp_path / "llm.mnn", 4 * ROWS * COLUMNS + 4 * ROWS
    first = writer.tables([writer.convolution(number * step) for number in range(3)])
    attention = writer.table(5, {0: first, 3: writer.norm(5 * step)}, {}, {2: 1})
    second = writer.tables([writer.convolution(number * step) for number in (3, 4)])
    mlp = writer.table(5, {0: second}, {}, {1: 1})
    operators = [
        writer.operator(Q, 307, 103, attention, [0, 1, 2, 4]),
        writer.operator(UP, 307, 103, mlp, [3]),
    ]
    writer.net(operators, [Q, K, V, "product", "sum"], path)
    values = np.arange((5 * step + 8 * COLUMNS) // 4, dtype="<f4")
    path.with_name("llm.mnn.weight").write_bytes(values.tobytes())
    return path


def test_members_are_layers_with_their_own_names(fused: Path) -> None:
    model = read_model(fused)
    assert [op.name for op in model.layers] == [Q, K, V, GATE, UP]
    assert {op.shape for op in model.layers} == {(ROWS, COLUMNS, 1, 1)}
    assert {"/blocks.0/input_layernorm/FusedLinear"} <= model.vectors().keys()
    assert model.external_missing == 0


def test_members_are_decoded_from_their_own_bytes(fused: Path) -> None:
    graph = read_graph(fused, fused.with_name("llm.mnn.weight"))
    data = memoryview(fused.with_name("llm.mnn.weight").read_bytes())
    starts = [decode_rows(matrix, data, 0, ROWS)[0, 0] for matrix in graph.matrices]
    step = ROWS * COLUMNS + ROWS
    assert starts == [number * step for number in range(5)]
    assert sum(run.length for run in graph.external) == len(data)
