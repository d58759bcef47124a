"""The recurrent half of an LSTM: its ranges from PyTorch, and the loop's body in int8."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.params import read_params, write_params
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.recurrent import hidden_states, recurrent_layers, recurrent_ranges
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import TIMEOUT, quietly

DATA = {"x": np.random.default_rng(0).normal(size=(64, 6, 8)).astype(np.float32)}


class Recurrent(nn.Module):
    def __init__(self, layers: int, both_ways: bool, kind: type[nn.LSTM] | type[nn.GRU] = nn.LSTM) -> None:
        super().__init__()
        self.rnn = kind(8, 16, layers, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(16 * (1 + both_ways), 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.rnn(x)[0][:, -1])
        return scores


CHOICES = Choices(Path(), calibration=DATA, timeout=TIMEOUT)


def source(network: nn.Module, store: Store) -> Prepared:
    return prepare(Spec("rnn", "rnn"), CHOICES, store, quietly, given=network)


@pytest.fixture(scope="module")
def lstm(store: Store) -> Prepared:
    torch.manual_seed(0)
    return source(Recurrent(1, False), store)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("both_ways", [False, True])
def test_hidden_states_are_those_that_the_steps_start_from(both_ways: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    whole = nn.LSTM(8, 5, 2, batch_first=batch_first, bidirectional=both_ways)
    x = torch.randn(3, 7, 8) if batch_first else torch.randn(7, 3, 8)
    with torch.no_grad():
        found = {(layer, reverse): states for layer, reverse, states in hidden_states(whole, x)}
        outputs, _ = whole(x)
    assert len(found) == 2 * (1 + both_ways)
    last, time = found[1, False], 1 if batch_first else 0
    torch.testing.assert_close(last.narrow(time, 1, 6), outputs[..., :5].narrow(time, 0, 6))
    assert (last.narrow(time, 0, 1) == 0).all()
    if both_ways:
        torch.testing.assert_close(found[1, True].narrow(time, 1, 6), outputs[..., 5:].narrow(time, 1, 6))


def test_a_given_state_is_what_the_first_step_starts_from() -> None:
    whole = nn.LSTM(8, 5)
    start = (torch.full((1, 3, 5), 0.5), torch.zeros(1, 3, 5))
    ((_, _, states),) = hidden_states(whole, torch.randn(7, 3, 8), start)
    assert (states[0] == 0.5).all()


def test_packed_sequences_and_single_ones_are_let_be() -> None:
    assert list(hidden_states(nn.LSTM(8, 5), torch.randn(7, 8))) == []


def test_a_body_is_known_by_its_weights(lstm: Prepared) -> None:
    assert lstm.network is not None
    (found,) = recurrent_layers(lstm.network, lstm.model)
    assert (found.module, found.layer, found.reverse) == ("rnn", 0, False)
    ranges = recurrent_ranges(lstm.network, lstm.model, (found,), Dataset(DATA))
    before, after = ranges[found.op.name]
    assert -1 < before.low < 0 < before.high < 1
    assert after.high > after.low


def test_the_body_of_an_lstm_is_stored_in_int8_and_its_scales_are_used(lstm: Prepared, store: Store) -> None:
    """There is no trace to show that it ran in int8; that its output depends on the scales does."""
    variant = make_variant(Job(lstm, recipe_named("int8"), "eval", (), CHOICES), store, quietly)
    assert {op.weights[0].label for op in variant.model.layers if op.is_convolution} == {"int8"}
    reference, whole = (
        run(model, DATA, RunOptions(TIMEOUT)).outputs["output"] for model in (variant.base, variant.model)
    )
    assert np.abs(reference - whole).max() < 0.05 * np.ptp(reference)
    assert variant.params is not None
    params = read_params(variant.params)
    body = params.layers[-1]
    assert body.output is not None
    narrow = dataclasses.replace(body, output=dataclasses.replace(body.output, scale=body.output.scale / 20))
    spoilt = variant.params.with_name("spoilt.bin")
    write_params(dataclasses.replace(params, layers=(*params.layers[:-1], narrow)), spoilt)
    model = convert(
        variant.base.path, spoilt.with_suffix(".mnn"), ("--compressionParamsFile", str(spoilt)), timeout=TIMEOUT
    )
    clipped = run(model, DATA, RunOptions(TIMEOUT)).outputs["output"]
    assert np.abs(reference - clipped).max() > 3 * np.abs(reference - whole).max()


@pytest.mark.parametrize(
    "network", [Recurrent(2, True), Recurrent(1, False, nn.GRU)], ids=["bodies of one name", "gru"]
)
def test_bodies_that_can_not_be_told_apart_or_are_no_lstms_keep_their_weights_only(
    network: nn.Module, store: Store
) -> None:
    prepared = source(network, store)
    assert prepared.network is not None
    assert recurrent_layers(prepared.network, prepared.model) == ()
    variant = make_variant(Job(prepared, recipe_named("int8+w8"), "eval", (), CHOICES), store, quietly)
    bodies = {op.weights[0].label for op in variant.model.layers if op.subgraph and op.is_convolution}
    assert bodies == {"w8"}


class Cell(nn.Module):
    """A cell without a state: its second layer reads zeros only, and no calibration can see it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.cell(x[:, 0]))
        return scores


def test_a_layer_that_reads_constants_only_gets_8_bits_without_scales(store: Store) -> None:
    torch.manual_seed(0)
    variant = make_variant(Job(source(Cell(), store), recipe_named("int8"), "eval", (), CHOICES), store, quietly)
    labels = sorted(op.weights[0].label for op in variant.model.layers)
    assert labels == ["int8", "int8", "w8"]
