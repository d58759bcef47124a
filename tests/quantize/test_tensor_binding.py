"""Tensors of the float model are bound to the PyTorch values they hold, and calibrated there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.tensor_binding import Binding, bind_tensors, moments_of
from pytest_mnnquant.quantize.torch_ranges import collect_extremes
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

ARRAYS = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32, allow_subnormal=False))


@given(ARRAYS, st.randoms(use_true_random=False))
def test_moments_do_not_depend_on_the_order(values: np.ndarray, random: object) -> None:
    shuffled = values.tolist()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = moments_of(values), moments_of(torch.tensor(shuffled))
    assert first is not None
    assert second is not None
    assert first.matches(second)
    assert second.matches(first)


@given(ARRAYS, st.integers(0, 39), st.floats(0.1, 10))
def test_one_other_number_of_size_is_noticed(values: np.ndarray, place: int, change: float) -> None:
    other = values.copy()
    other[place % len(values)] += change * (1 + np.abs(values).max())
    first, second = moments_of(values), moments_of(other)
    assert first is not None
    assert second is not None
    assert not first.matches(second)


def test_rounding_is_forgiven_and_other_counts_are_not() -> None:
    values = np.linspace(-3, 5, 100, dtype=np.float32)
    exact = moments_of(values)
    assert exact is not None
    rounded, longer = moments_of(values * np.float32(1 + 1e-5)), moments_of(np.append(values, values))
    assert rounded is not None
    assert longer is not None
    assert exact.matches(rounded)
    assert not exact.matches(longer)


@pytest.mark.parametrize("values", [[], [np.nan], [1, np.inf], [1e300, 1e300]], ids=str)
def test_empty_and_broken_values_have_no_moments(values: list[float]) -> None:
    assert moments_of(torch.tensor(values, dtype=torch.float64)) is None


def bound(source: Prepared) -> Binding:
    assert source.network is not None
    assert source.calibration is not None
    layers = int8_layers(source.model)
    return bind_tensors(
        source.network, source.model, layers, source.calibration, RunOptions(TIMEOUT, batched=source.batched)
    )


@pytest.mark.parametrize("name", ["digits_cnn", "mobile_net", "tiny_transformer", "garment_classifier"])
def test_every_layer_of_the_shipped_models_is_bound_to_where_it_is_made(workshop: Workshop, name: str) -> None:
    source = workshop.prepared(name)
    binding = bound(source)
    assert None not in binding.values.values()
    assert source.network is not None
    known = dict(source.network.named_modules())
    for op in int8_layers(source.model):
        module = known[binding.modules[op.name]]
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.numel() == op.weight_count


class Attends(nn.Module):
    """Attention of one input with itself, whose first product PyTorch computes otherwise for one sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.attention(x, x, x, need_weights=False)[0]
        return result


def test_the_values_of_a_single_sample_are_those_of_a_batch(workshop: Workshop) -> None:
    network, x = Attends().eval(), np.random.default_rng(0).standard_normal((40, 9, 6)).astype(np.float32)
    data = Dataset({"x": x})
    model = workshop.floats(network, data, dynamic=False)
    first = model.convolutions[0]
    value = bind_tensors(network, model, (first,), data, RunOptions(TIMEOUT, batched=False)).values[first.outputs[0]]
    assert value is not None
    ranges = collect_extremes(network, {value}, data)[value]
    attention = network.attention
    expected = nn.functional.linear(torch.from_numpy(x), attention.in_proj_weight, attention.in_proj_bias)
    np.testing.assert_allclose(ranges[:, 0].min(), expected.min().item(), rtol=1e-4)
    np.testing.assert_allclose(ranges[:, 1].max(), expected.max().item(), rtol=1e-4)
