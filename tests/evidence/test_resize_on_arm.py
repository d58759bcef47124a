"""A bilinear resize in int8 that aarch64 computes wrongly, planted in a file, and its healthy counterpart."""

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
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.quants import write_with_quants
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


def judged(width: int, folder: Path, quantized: Path | None = None) -> VariantUnderTest:
    """The variant that the recipe makes, or a finished file."""
    images = {"image": np.random.default_rng(0).standard_normal((8, 3, 8, width // 2)).astype(np.float32)}
    values = FixtureValues(Resized(width).eval(), images, images)
    settings = ModelSettings("net", "net", folder, quantized=None if quantized is None else str(quantized))
    source = SourceUnderTest(settings, Spec("net", "net"), Store(folder), print, values)
    return variant_under_test(source, "int8", "eval")


def with_int8_resize(model: Model, path: Path) -> Path:
    """A copy that runs the resize in int8, as other quantizers do."""
    resize = next(op for op in model.ops if op.kind == "Interp")
    given = next(op for op in model.ops if resize.inputs[0] in op.outputs).inputs[0]
    same = dict.fromkeys((resize.inputs[0], *resize.outputs), model.tensor_quants[given])
    write_with_quants(model, {**model.tensor_quants, **same}, path)
    return path


@pytest.mark.parametrize(("width", "columns"), [(14, 2), (16, 0)])
def test_a_width_that_arm_computes_wrongly_fails(tmp_path: Path, width: int, columns: int) -> None:
    made = judged(width, tmp_path)
    assert run_check(made, "execution", selected=("execution",)).outcome == PASSED
    assert made.runs.int8_faults.resizes == ()
    planted = judged(width, tmp_path, with_int8_resize(made.model, tmp_path / "planted.mnn"))
    result = run_check(planted, "execution", selected=("execution",))
    assert sum(resize.columns for resize in planted.runs.int8_faults.resizes) == columns
    assert [finding.code for finding in result.findings] == ["MNQ613"] * bool(columns)
    assert result.outcome == (FAILED if columns else PASSED)
    if not columns:  # Columns that lie on input columns: each third one.
        name = next(op.name for op in planted.model.ops if op.kind == "Interp")
        assert [resize.columns for resize in wrong_resizes(planted.model, {name: (8, 24)})] == [8]
