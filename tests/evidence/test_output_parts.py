"""Real networks whose outputs join parts, or hold class numbers: lost parts fail, healthy models pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.finding import PASSED
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import TIMEOUT, quietly
from tests.synthetic_evidence import codes

INPUTS = {"x": np.random.default_rng(0).random((32, 3, 16, 16), np.float32)}


class Detector(nn.Module):
    """Rows of a detector: boxes in pixels and scores from 0 to 1, joined or as two outputs."""

    def __init__(self, joined: bool) -> None:
        super().__init__()
        self.joined = joined
        self.body, self.head = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 6, 1)
        nn.init.normal_(self.head.weight, 0, 1.5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Boxes [N, 4, 64] and scores [N, 2, 64]."""
        features = self.head(torch.relu(self.body(x))).flatten(2)
        boxes, scores = features[:, :4] * 60 + 320, features[:, 4:].sigmoid()
        return torch.cat([boxes, scores], 1) if self.joined else (boxes, scores)


class Classes(nn.Module):
    """The class of each pixel, as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 16, 16]: 1 where the picture is bright, by a wide margin."""
        bright = (x.mean(1, keepdim=True) > 0.5).float()
        classes: Tensor = (self.body(x) * 1e-3 + torch.cat([1 - bright, bright], 1)).argmax(1)
        return classes


def source(network: nn.Module, store: Store) -> SourceUnderTest:
    settings = ModelSettings("net", "net", store.root, timeout=TIMEOUT)
    values = FixtureValues(network.eval(), calibration=INPUTS, evaluation=INPUTS)
    return SourceUnderTest(settings, Spec("net", "net"), store, quietly, values)


@pytest.mark.parametrize(
    ("joined", "recipe", "expected"),
    [(True, "mnnquant-kl", ["MNQ712"]), (True, "int8", []), (True, "w8", []), (False, "mnnquant-kl", [])],
)
def test_scores_that_share_the_scale_of_boxes_fail(
    joined: bool, recipe: str, expected: list[str], store: Store
) -> None:
    torch.manual_seed(0)
    case = variant_under_test(source(Detector(joined), store), recipe, "eval" if recipe == "int8" else None)
    result = run_check(case, "accuracy")
    assert [code for code in codes(result) if code != "MNQ730"] == expected
    if expected:
        (finding,) = (item for item in result.findings if item.code == "MNQ712")
        assert finding.cause_id == "parts-share-scale"
        assert finding.layer in {op.name for op in case.model.ops if op.kind == "Concat"}


def test_equal_class_numbers_prove_nothing_and_fail_nothing(store: Store) -> None:
    torch.manual_seed(0)
    case = variant_under_test(source(Classes(), store), "w8", None)
    reference, outputs = case.source.float_run.outputs, case.runs.run.outputs
    assert all(np.array_equal(array, outputs[name]) for name, array in reference.items())
    assert case.runs.same_as_float is None
    assert run_check(case, "execution").outcome == PASSED
    assert run_check(case, "accuracy").outcome == PASSED
