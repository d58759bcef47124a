"""BatchNorms that MNN does not fold, which its int8 ruins, and the form of them that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.metrics.agreement import Agreement, agreement
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.calibration import make_params, save_params
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.ranges import calibrate_runtime
from pytest_mnnquant.quantize.unfolded_batchnorm import MultiplyAdd, find_unfolded, replace_unfolded
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.recipes.names import RECIPES
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.model_digest import digest
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import TIMEOUT, quietly
from tests.smallnets import Loose
from tests.workshop import Workshop

DATA: dict[str, Any] = {"x": torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()}
CHOICES = Choices(Path(), calibration=DATA, evaluation=DATA, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def source(store: Store) -> Prepared:
    torch.manual_seed(0)
    return prepare(Spec("loose", "loose"), CHOICES, store, quietly, given=Loose())


def names(source: Prepared) -> frozenset[str]:
    assert source.network is not None
    return find_unfolded(source.network, source.model, Dataset(DATA), RunOptions(TIMEOUT, batched=source.batched))


def test_norms_that_became_scales_are_found_by_their_values(source: Prepared) -> None:
    assert sum(op.kind == "Scale" for op in source.model.ops) == 2
    assert names(source) == {"entry", "loose"}


def test_a_net_whose_norms_are_all_folded_has_none(digits: Prepared) -> None:
    assert digits.network is not None
    assert digits.calibration is not None
    found = find_unfolded(digits.network, digits.model, digits.calibration, RunOptions(TIMEOUT, batched=True))
    assert found == frozenset()
    assert replace_unfolded(digits.network, found) is digits.network


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(5), (7, 5)),
        (nn.BatchNorm1d(5, affine=False), (7, 5, 3)),
        (nn.BatchNorm2d(5, eps=0.1), (7, 5, 3, 2)),
        (nn.BatchNorm3d(5), (7, 5, 3, 2, 2)),
    ],
    ids=str,
)
def test_a_multiplication_and_an_addition_compute_the_same(norm: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 1
    norm.train()(x)
    torch.testing.assert_close(MultiplyAdd(norm)(x), norm.eval()(x), rtol=1e-5, atol=1e-5)


def test_the_plain_copy_computes_the_same_and_the_network_is_left_alone(source: Prepared) -> None:
    assert source.network is not None
    before = digest(source.network)
    plain = replace_unfolded(source.network, names(source))
    assert isinstance(plain.get_submodule("loose"), MultiplyAdd)
    assert isinstance(plain.get_submodule("folded"), nn.BatchNorm2d)
    x = torch.from_numpy(DATA["x"])
    with torch.no_grad():
        torch.testing.assert_close(plain(x), source.network(x), rtol=1e-4, atol=1e-4)
    assert digest(source.network) == before


def compared(reference: Model, other: Model) -> Agreement:
    outputs = [run(model, DATA, RunOptions(TIMEOUT)).outputs["output"] for model in (reference, other)]
    return agreement(outputs[0], outputs[1])


def test_the_int8_recipe_gets_it_right_where_the_scales_are_wrong(
    workshop: Workshop, source: Prepared, store: Store
) -> None:
    """Should the second half fail one day, MNN has mended its int8 Scale, and `norms` has become needless."""
    variant = make_variant(Job(source, RECIPES["int8"], "eval", (), CHOICES), store, quietly)
    found = compared(source.model, variant.model)
    assert found.cosine is not None
    assert found.cosine > 0.99
    assert found.centred_sqnr_db > 15
    layers = int8_layers(source.model)
    ranges = calibrate_runtime(source.model, layers, Dataset(DATA), RunOptions(TIMEOUT, batched=True)).ranges
    path = save_params(make_params(source.model, layers, ranges), source.model.path.with_name("plain.bin"))
    naive = workshop.quantized(source.model, "--compressionParamsFile", str(path))
    assert compared(source.model, naive).centred_sqnr_db < 5


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_each_mode_is_compared_with_the_same_network(source: Prepared, store: Store, mode: str) -> None:
    variant = make_variant(Job(source, RECIPES["int8"], mode, (), CHOICES), store, quietly)
    assert len(variant.base.layers) == len(variant.model.layers) == 3
    assert compared(variant.base, variant.model).centred_sqnr_db > 10
    assert np.isfinite(variant.drift)


class Tripled(nn.BatchNorm2d):
    """A norm with its own `forward`."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Three times the norm."""
        return super().forward(value) * 3


def test_norms_with_custom_code_keep_its_effect(store: Store) -> None:
    torch.manual_seed(0)
    hooked = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), hooked, nn.ReLU(), Tripled(8), nn.Conv2d(8, 4, 3))
    x = torch.from_numpy(DATA["x"])
    network.train()(x)
    hooked.register_forward_hook(lambda module, args, result: result * 2 + 1)
    choices = Choices(Path(), calibration={"input": DATA["x"]}, timeout=TIMEOUT)
    given = prepare(Spec("custom", "custom"), choices, store, quietly, given=network.eval())
    assert sum(op.kind == "Scale" for op in given.model.ops) >= 1
    assert given.network is not None
    options = RunOptions(TIMEOUT, batched=given.batched)
    found = find_unfolded(given.network, given.model, Dataset({"input": DATA["x"]}), options)
    assert found == {"2"}
    plain = replace_unfolded(given.network, found)
    assert isinstance(plain.get_submodule("2._mnnquant_step"), MultiplyAdd)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), network(x), rtol=1e-4, atol=1e-4)
