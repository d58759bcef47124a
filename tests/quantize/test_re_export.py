"""A float model that is exported for one variant is proven like the source's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.conversion import CALIBRATED, VARIANTS_FLOAT
from pytest_mnnquant.quantize.conversion_proof import is_proven
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.names import RECIPES
from pytest_mnnquant.sources.spec import SourceError, Spec
from tests.conftest import TIMEOUT, quietly
from tests.smallnets import Loose
from tests.workshop import Workshop

DATA: dict[str, Any] = {"x": 3 + np.random.default_rng(0).standard_normal((48, 1, 8, 8)).astype(np.float32)}
CHOICES = Choices(Path(), calibration=DATA, evaluation=DATA, timeout=TIMEOUT)


def prepared(network: nn.Module, store: Store) -> Prepared:
    return prepare(Spec("net", "net"), CHOICES, store, quietly, given=network)


def made(source: Prepared, store: Store, mode: str) -> Variant:
    return make_variant(Job(source, RECIPES["int8"], mode, (), CHOICES), store, quietly)


@pytest.mark.parametrize("name", ["digits_cnn", "mobile_net"])
def test_a_model_that_train_mode_moved_has_a_proof_of_its_own(workshop: Workshop, name: str) -> None:
    variant = workshop.variant(name, "int8", "train")
    assert variant.base.path != workshop.prepared(name).model.path
    (step,) = variant.chain
    assert (step.before, step.after) == (CALIBRATED, VARIANTS_FLOAT)
    assert is_proven(step.outputs)
    assert step.outputs["output"].samples == 64
    assert workshop.variant(name, "int8", "eval").chain == ()


def test_the_proof_is_kept_with_the_variant(store: Store) -> None:
    torch.manual_seed(0)
    source = prepared(Loose(), store)
    first, again = (made(source, store, "eval") for _ in range(2))
    assert first.base.path == again.base.path != source.model.path
    assert first.chain == again.chain
    assert is_proven(first.chain[0].outputs)


class Shrinking(nn.Module):
    """A net that takes another way once its statistics have moved: over an operator that MNN gets wrong."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 36, 3)

    def highest(self) -> torch.Tensor:
        mean = self.norm.running_mean
        assert mean is not None
        return mean.abs().max()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.first(x))
        if not self.training and self.highest() > 0.5:
            y = functional.softshrink(y)
        out: torch.Tensor = self.last(y.flatten(1))
        return out


class Rooted(Shrinking):
    """A net that computes NaN once its statistics have moved."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.norm(self.first(x)).flatten(1))
        return out * (0.5 - self.highest()).sqrt()


def test_a_model_that_is_exported_wrongly_after_calibration_is_not_quantized(store: Store) -> None:
    source = prepared(Shrinking(), store)
    assert source.proof is not None
    assert is_proven(source.proof)
    with pytest.raises(SourceError, match=r"net: exported again for int8-train, output 'output' of the float .mnn"):
        made(source, store, "train")
    assert made(source, store, "eval").chain == ()


def test_a_model_that_calibration_itself_broke_is_left_to_the_accuracy_check(store: Store) -> None:
    """PyTorch computes NaN too: there is nothing to blame on the export."""
    variant = made(prepared(Rooted(), store), store, "train")
    assert not is_proven(variant.chain[0].outputs)
