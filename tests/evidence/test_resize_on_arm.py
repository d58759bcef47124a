"""A bilinear resize in int8 that aarch64 computes wrongly, planted with the real tools, and its healthy counterpart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.finding import FAILED, PASSED
from pytest_mnnquant.mnnfile.int8_resize import wrong_resizes
from pytest_mnnquant.sources.spec import Spec


class Resized(torch.nn.Module):
    """Two convolutions, and a bilinear resize to `width` between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.width = torch.nn.Conv2d(3, 8, 3, 1, 1), torch.nn.Conv2d(8, 8, 1), width

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """A map."""
        resized = functional.interpolate(functional.relu(self.first(image)), (16, self.width), mode="bilinear")
        made: torch.Tensor = self.last(resized)
        return made


def variant(width: int, folder: Path) -> VariantUnderTest:
    images = {"image": np.random.default_rng(0).standard_normal((8, 3, 8, width // 2)).astype(np.float32)}
    values = FixtureValues(Resized(width).eval(), images, images)
    source = SourceUnderTest(ModelSettings("net", "net", folder), Spec("net", "net"), Store(folder), print, values)
    return variant_under_test(source, "int8", "eval")


@pytest.mark.parametrize(("width", "columns"), [(14, 2), (16, 0)])
def test_a_width_that_arm_computes_wrongly_fails(tmp_path: Path, width: int, columns: int) -> None:
    case = variant(width, tmp_path)
    result = run_check(case, "execution", selected=("execution",))
    assert sum(resize.columns for resize in case.runs.int8_faults.resizes) == columns
    assert [finding.code for finding in result.findings] == ["MNQ613"] * bool(columns)
    assert result.outcome == (FAILED if columns else PASSED)
    if not columns:  # Columns that lie on input columns: each third one.
        name = next(op.name for op in case.model.ops if op.kind == "Interp")
        assert [resize.columns for resize in wrong_resizes(case.model, {name: (8, 24)})] == [8]
