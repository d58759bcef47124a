"""Timing side by side, memory and the time of operators, with the real runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.measurements.timing import MEMORY_MODES, TimingSettings
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.programs import timer
from pytest_mnnquant.runtime.timing import memory_use, op_times, paired_times
from pytest_mnnquant.statistics.paired_ratio import paired_ratio
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

Images = dict[str, np.ndarray]


@pytest.fixture
def digits(workshop: Workshop) -> Prepared:
    return workshop.prepared("digits_cnn")


@pytest.fixture
def images(digits: Prepared) -> Images:
    assert digits.evaluation is not None
    return dict(digits.evaluation.head(4))


def test_times_come_in_pairs_with_sessions_made_anew(digits: Prepared, workshop: Workshop, images: Images) -> None:
    variant = workshop.variant("digits_cnn", "w4")
    how = TimingSettings(pairs=20, width=10.0, batch=2)
    times = paired_times(digits.model, variant.model, images, how, RunOptions(TIMEOUT))
    assert times.reference.shape == times.candidate.shape == (20,)
    assert times.starts == (0, 4, 8, 12, 16)
    assert (times.reference > 0).all()
    assert (times.candidate > 0).all()
    assert times.settings == how
    assert times.host is not None
    assert times.host.machine


def test_pairs_go_on_until_the_ratio_is_known(digits: Prepared, images: Images) -> None:
    how = TimingSettings(pairs=10, most=40, width=0.0, budget=30.0)
    assert len(paired_times(digits.model, digits.model, images, how, RunOptions(TIMEOUT)).reference) == 40


def test_the_time_budget_ends_it(digits: Prepared, images: Images) -> None:
    how = TimingSettings(pairs=10**6, most=10**6, budget=0.2)
    assert len(paired_times(digits.model, digits.model, images, how, RunOptions(TIMEOUT)).reference) < 10**5


@pytest.mark.parametrize("pairs", [6, 30, 31, 150, 1000])
def test_the_child_knows_as_much_as_the_judge(pairs: int) -> None:
    """It stops by the same interval as the ratio is judged by."""
    ratios = np.random.default_rng(pairs).normal(1, 0.05, pairs)
    judged = paired_ratio(np.ones(pairs), ratios)
    half = (judged.high - judged.low) / 2 / judged.median
    times = [[1.0] * pairs, ratios.tolist()]
    assert timer.is_known(times, half * 1.001, None)
    assert not timer.is_known(times, half * 0.999, None)
    assert not timer.is_known(times, 1.0, judged.median)
    assert timer.is_known(times, 1.0, judged.high * 1.001)


def test_memory_is_that_of_the_storage(digits: Prepared, workshop: Workshop, images: Images) -> None:
    base = memory_use(digits.model, images, RunOptions(TIMEOUT))
    int8 = memory_use(workshop.variant("digits_cnn", "int8", "eval").model, images, RunOptions(TIMEOUT))
    w8 = memory_use(workshop.variant("digits_cnn", "w8").model, images, RunOptions(TIMEOUT))
    assert set(base) == set(MEMORY_MODES) == {0, 2}
    assert not any(use.error for used in (base, int8, w8) for use in used.values())
    assert int8[0].session < 0.5 * base[0].session
    assert w8[0].session > 0.9 * base[0].session  # MNN makes float weights of them at loading.
    assert w8[2].session < 0.5 * base[0].session
    assert base[0].peak is not None
    assert base[0].peak > base[0].session / 2


def test_every_operator_has_its_time(digits: Prepared, workshop: Workshop, images: Images) -> None:
    model = workshop.variant("digits_cnn", "int8", "eval").model
    found = op_times(model, images, TimingSettings(), RunOptions(TIMEOUT))
    assert {layer.name for layer in model.layers} <= {op.name for op in found if op.is_int8}
    assert all(op.seconds > 0 for op in found)


class Looping(nn.Module):
    """An LSTM, whose steps become a While body in MNN."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the last step."""
        result: torch.Tensor = self.head(self.layer(x)[0][:, -1])
        return result


@pytest.fixture
def loop(workshop: Workshop) -> tuple[Model, Images]:
    torch.manual_seed(0)
    inputs = {"x": np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)}
    return workshop.floats(Looping().eval(), inputs), inputs


def test_models_with_loops_are_timed(loop: tuple[Model, Images], workshop: Workshop) -> None:
    model, inputs = loop
    assert model.has_subgraphs
    light = workshop.quantized(model, "--weightQuantBits", "8")
    times = paired_times(model, light, inputs, TimingSettings(pairs=10, width=10.0), RunOptions(TIMEOUT))
    assert len(times.reference) == 10
    assert 0.1 < float(np.median(times.candidate) / np.median(times.reference)) < 10
    assert op_times(model, inputs, TimingSettings(), RunOptions(TIMEOUT)) == ()


def test_the_memory_of_models_with_loops_is_what_the_process_grows_by(loop: tuple[Model, Images]) -> None:
    model, inputs = loop
    used = memory_use(model, inputs, RunOptions(TIMEOUT))
    assert used.keys() == set(MEMORY_MODES)
    for use in used.values():
        assert not use.error
        assert use.peak is not None
        assert 0 < use.session <= use.peak
