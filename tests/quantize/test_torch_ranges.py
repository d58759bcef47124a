"""What hooks see is what watching every operator sees, in both modes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.torch_ranges import collect_extremes, collect_histograms, module_exits
from pytest_mnnquant.quantize.torch_watch import Value, watch_values

DATA = Dataset({"x": np.random.default_rng(0).normal(size=(70, 3, 8, 8)).astype(np.float32)})


class Block(nn.Module):
    """In-place activation, a functional residual, a shared module, and a value in the middle of `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.act(self.norm(self.conv(x)))
        second = torch.sigmoid(self.conv(first)) * 3
        last: torch.Tensor = self.drop(x + second)
        return last


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block()


def by_watching(network: nn.Module, data: Dataset) -> dict[Value, list[list[float]]]:
    found: dict[Value, list[list[float]]] = defaultdict(list)
    with watch_values(
        network, lambda value, tensor: found[value].append([float(tensor.min()), float(tensor.max())])
    ) as run:
        torch.manual_seed(0)
        for batch in data.batches(32):
            run(torch.from_numpy(batch["x"]))
    return found


@pytest.mark.parametrize("training", [False, True])
def test_hooks_see_what_watching_sees(block: Block, training: bool) -> None:
    block.train(training)
    before = {key: value.clone() for key, value in block.state_dict().items()}
    values = by_watching(block, DATA)
    block.load_state_dict(before)
    example = (torch.from_numpy(DATA.head(2)["x"]),)
    hooked = {Value("", "input0", 0), *module_exits(block, example)} & values.keys()
    block.load_state_dict(before)
    found = collect_extremes(block, hooked, DATA)
    assert {(value.module, value.operator) for value in hooked} >= {
        ("conv", "convolution"),
        ("act", "relu"),
        ("", "input0"),
    }
    assert found.keys() == hooked
    for value, rows in found.items():
        np.testing.assert_array_equal(rows, np.array(values[value], np.float32))


def test_a_value_that_leaves_no_module_is_watched(block: Block) -> None:
    block.eval()
    values = by_watching(block, DATA)
    hidden = next(value for value in values if value.operator == "sigmoid")
    assert hidden not in module_exits(block, (torch.from_numpy(DATA.head(2)["x"]),))
    np.testing.assert_array_equal(collect_extremes(block, {hidden}, DATA)[hidden], np.array(values[hidden], np.float32))


def test_what_dropout_leaves_is_no_value_of_the_module(block: Block) -> None:
    """In train mode the block returns what dropout made of its last value, so a hook there would see another range."""
    block.train()
    last = next(value for value in by_watching(block, DATA) if value.operator == "add" and not value.module)
    assert last not in module_exits(block, (torch.from_numpy(DATA.head(2)["x"]),))
    block.eval()
    assert last in module_exits(block, (torch.from_numpy(DATA.head(2)["x"]),))


def test_looking_for_exits_is_no_pass_of_a_network_in_train_mode(block: Block) -> None:
    """BatchNorm counts the batches it has seen: three of data, none of trial."""
    collect_extremes(block.train(), {Value("act", "relu", 0)}, DATA)
    assert int(block.norm.num_batches_tracked or 0) == 3


def test_histograms_count_every_value_once(block: Block) -> None:
    value = Value("act", "relu", 0)
    span = collect_extremes(block.eval(), {value}, DATA)[value]
    found = collect_histograms(block, {value: (float(span[:, 0].min()), float(span[:, 1].max()))}, DATA)[value]
    assert found.counts.sum() == DATA.inputs["x"].size
    assert found.counts[0] > found.counts[1:].max()  # the zeros of ReLU
