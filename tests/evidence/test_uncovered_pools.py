"""Int8 MaxPools that x86 computes wrongly: judged on an exact copy, or not judged at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.finding import INCONCLUSIVE, PASSED
from pytest_mnnquant.mnnfile.pooling import is_max_pool, pools_right
from pytest_mnnquant.runtime.arm_equivalent import int8_pools
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import TIMEOUT, quietly

pytestmark = pytest.mark.skipif(pools_right(), reason="int8 MaxPool is right on this architecture")


class Pooled(nn.Module):
    """A MaxPool of one, two or three dimensions between two layers."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.first, self.last = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(4 if dimensions == 3 else 8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map."""
        features = functional.relu(self.first(x))
        if self.dimensions == 1:
            pooled = functional.max_pool1d(features.flatten(2), 2).unsqueeze(3)
        elif self.dimensions == 2:
            pooled = functional.max_pool2d(features, 2)
        else:
            pooled = functional.max_pool3d(features.unsqueeze(1), 2).squeeze(1)
        result: torch.Tensor = self.last(pooled)
        return result


def variant(dimensions: int, folder: Path) -> VariantUnderTest:
    torch.manual_seed(0)
    inputs = {"x": np.random.default_rng(0).standard_normal((16, 3, 16, 16)).astype(np.float32)}
    settings, store = ModelSettings("net", "net", folder, timeout=TIMEOUT), Store(folder / "store")
    values = FixtureValues(Pooled(dimensions).eval(), calibration=inputs, evaluation=inputs)
    return variant_under_test(SourceUnderTest(settings, Spec("net", "net"), store, quietly, values), "int8", "eval")


def test_a_pool_of_three_dimensions_can_not_be_judged_on_this_machine(tmp_path: Path) -> None:
    case = variant(3, tmp_path)
    (pool,) = (op.name for op in case.model.ops if is_max_pool(op) or op.kind == "Pooling3D")
    assert pool in int8_pools(case.model, case.runs.run)
    assert case.runs.uncovered_pools == (pool,)
    result = run_check(case, "accuracy")
    assert result.outcome == INCONCLUSIVE
    ((code, layer, cause),) = ((finding.code, finding.layer, finding.cause_id) for finding in result.findings)
    assert (code, layer, cause) == ("MNQ711", pool, "max-pool-compares-signed")


@pytest.mark.parametrize("dimensions", [1, 2])
def test_other_pools_are_judged_on_an_exact_copy(dimensions: int, tmp_path: Path) -> None:
    case = variant(dimensions, tmp_path)
    assert int8_pools(case.model, case.runs.run)
    assert case.runs.uncovered_pools == ()
    assert not int8_pools(case.model, case.runs.exact_run[0])
    result = run_check(case, "accuracy")
    assert result.outcome == PASSED
    assert [finding.code for finding in result.findings] == ["MNQ710"]
