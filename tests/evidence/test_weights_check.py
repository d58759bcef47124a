"""Scales that depend on addresses: what is proposed was built of the same source and run through both APIs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.checks.weights.scale_order import TriedRecipe, with_tried
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.sources.spec import Spec


class Neck(torch.nn.Module):
    """A deep feature goes upsampled into one joined tensor, and unmodified into another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = torch.nn.Conv2d
        self.first, self.second, self.deep = conv(3, 16, 3, 2, 1), conv(16, 24, 3, 2, 1), conv(24, 32, 3, 2, 1)
        self.up, self.down, self.last = conv(56, 24, 3, 1, 1), conv(24, 24, 3, 2, 1), conv(56, 6, 3, 1, 1)
        with torch.no_grad():
            self.deep.weight.mul_(0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """One map."""
        second = functional.silu(self.second(functional.silu(self.first(image))))
        deep = functional.silu(self.deep(second))
        raised = functional.interpolate(deep, scale_factor=2, mode="nearest")
        up = functional.silu(self.up(torch.cat([raised, second], 1)))
        made: torch.Tensor = self.last(torch.cat([functional.silu(self.down(up)), deep], 1))
        return made


def samples(count: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    shape = (count, 3, 32, 32)
    return {"image": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


Files = tuple[Path, Path]


def source(folder: Path, settings: ModelSettings, **data: Any) -> SourceUnderTest:
    store = Store(folder / "store")
    return SourceUnderTest(settings, Spec("net", "net"), store, lambda _: None, FixtureValues(Neck().eval(), **data))


@pytest.fixture(scope="module")
def ambiguous(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A file of mnnquant's EMA, which describes no tensor but those of layers; and the float model."""
    folder = tmp_path_factory.mktemp("ambiguous")
    gate = source(folder, ModelSettings("net", "net", folder), calibration=samples(16, 1), evaluation=samples(8, 2))
    return variant_under_test(gate, "mnnquant-ema", None).model.path, gate.prepared.model.path


def judged(files: Files, folder: Path, **data: Any) -> Finding:
    quantized, base = files
    settings = ModelSettings("net", "net", folder, quantized=str(quantized), recipes=("mnnquant-ema",))
    spec, store = Spec(str(base), "net", base), Store(folder / "store")
    gate = SourceUnderTest(settings, spec, store, lambda _: None, FixtureValues(None, **data))
    result = run_check(variant_under_test(gate, "mnnquant-ema", None), "weights")
    (finding,) = [finding for finding in result.findings if finding.code == "MNQ418"]
    return finding


def test_the_fix_of_a_finished_file_was_built_and_run(ambiguous: Files, tmp_path: Path) -> None:
    finding = judged(ambiguous, tmp_path, evaluation=samples(8, 2))
    assert "--mnn-recipe=int8 (SQNR " in finding.fix
    assert "--mnn-skip-layer" not in finding.fix


def test_without_data_nothing_is_tried(ambiguous: Files, tmp_path: Path) -> None:
    finding = judged(ambiguous, tmp_path)
    assert "SQNR" not in finding.fix
    assert "--mnn-calibration" in finding.fix


WORKING = TriedRecipe("int8", 47.25, 47.25, 0.99991, is_ambiguous=False, apis_agree=True)
FINDING = Result.from_findings("weights", [Finding("MNQ418", "by address", "sum"), Finding("MNQ412", "others", "head")])


@pytest.mark.parametrize(
    ("tried", "is_proposed"),
    [
        (WORKING, True),
        (dataclasses.replace(WORKING, is_ambiguous=True), False),
        (dataclasses.replace(WORKING, apis_agree=False), False),
    ],
)
def test_a_recipe_is_proposed_if_its_result_does_not_depend_on_addresses(tried: TriedRecipe, is_proposed: bool) -> None:
    result = with_tried(FINDING, [tried], "")
    assert result.findings[1] == FINDING.findings[1]
    assert tried.works is is_proposed
    assert ("--mnn-skip-layer" in result.findings[0].fix) is not is_proposed
    assert "47.2 dB" in result.findings[0].fix
