"""Corrected biases: the mean error of a layer is measured on its codes, and gone from the int8 model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.params import ActivationParams
from pytest_mnnquant.quantize.bias_correction import rounded_values, rounded_weights
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import TIMEOUT, quietly

DATA: dict[str, Any] = {"input": np.random.default_rng(0).random((32, 4, 8, 8)).astype(np.float32)}
CHOICES = Choices(Path(), calibration=DATA, evaluation=DATA, timeout=TIMEOUT)


def test_weights_and_values_are_rounded_to_their_codes() -> None:
    weights = np.array([[0.26, -0.9], [4.0, 1.2]], np.float32)
    scales = np.array([0.5, 0.01], np.float32)
    assert np.allclose(rounded_weights(weights, scales, -127, 127), [[0.5, -1.0], [1.27, 1.2]])
    grid = ActivationParams("x", 0.5, -127, clamp_min=-127, clamp_max=127)
    values = np.array([-1.0, 0.3, 126.9, 500.0], np.float32)
    assert np.allclose(rounded_values(values, grid), [0.0, 0.5, 127.0, 127.0])


@pytest.fixture(scope="module")
def source(store: Store) -> Prepared:
    """A network whose weights round to 0 although they sum up: one weight of each filter sets a coarse scale."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(4, 16, 3, 1, 1), nn.Conv2d(16, 8, 1)
    with torch.no_grad():
        first.weight.copy_(torch.full_like(first.weight, 0.003))
        first.weight[:, 0, 1, 1] = 1.0 + 0.1 * torch.rand(16)
    net = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return prepare(Spec("coarse", "coarse"), CHOICES, store, quietly, given=net.eval())


def test_the_mean_error_of_coarse_weights_is_corrected(source: Prepared, store: Store) -> None:
    expected = next(iter(run(source.model, DATA, source.options(TIMEOUT)).outputs.values()))
    qualities, errors = {}, {}
    for recipe in ("int8", "int8+corrected"):
        variant = make_variant(Job(source, recipe_named(recipe), "eval", (), CHOICES), store, quietly)
        computed = next(iter(run(variant.model, DATA, source.options(TIMEOUT)).outputs.values()))
        qualities[recipe] = sqnr_db(expected, computed)
        errors[recipe] = float(np.abs((computed - expected).mean(0)).max())
    assert qualities["int8+corrected"] > qualities["int8"] + 6
    assert errors["int8+corrected"] < errors["int8"] / 2
    (step,) = variant.provenance["transformations"]
    assert (step["suffix"], step["is_refused"]) == ("corrected", False)
