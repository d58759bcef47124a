"""A variant with layers left float depends on the data that its tensors are observed on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.reduced_variant import reduced_variant
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import FIXTURES
from tests.quantize.test_equalization import DATA, Residual


def parent_on(store: Store, factor: float, made: Variant | None = None) -> VariantUnderTest:
    torch.manual_seed(0)
    data: dict[str, Any] = {"x": np.asarray(DATA["x"]) * np.float32(factor)}
    values = FixtureValues(model=Residual().eval(), calibration=data)
    settings = model_settings("net", "net", FIXTURES, {})
    source = SourceUnderTest(settings, Spec("net", "net"), store, lambda _: None, values)
    if made is None:
        return variant_under_test(source, "int8", "eval")
    return VariantUnderTest(source, recipe_named("int8"), "eval", made=made)


def test_other_data_give_another_entry(store: Store) -> None:
    parent = parent_on(store, 1.0)
    name = parent.variant.base.convolutions[0].name
    first, same = (reduced_variant(parent, (name,)) for _ in range(2))
    other = reduced_variant(parent_on(store, 4.0, parent.variant), (name,))
    assert first is not None
    assert same is not None
    assert other is not None
    assert first.model.path == same.model.path != other.model.path
