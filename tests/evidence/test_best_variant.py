"""`int8-best` takes the first recipe that meets the limits, and says what it tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence import best_variant
from pytest_mnnquant.evidence.best_decision import search_key
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.finding import FAILED, PASSED
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.sources.spec import SourceError, Spec
from tests.conftest import FIXTURES
from tests.quantize.test_equalization import DATA, HELD_OUT, Residual

CALIBRATION: dict[str, Any] = {"x": np.asarray(DATA["x"])}


def best(
    store: Store,
    base: Path = FIXTURES,
    evaluation: Any = HELD_OUT,
    network: nn.Module | None = None,
    **limits: Any,
) -> VariantUnderTest:
    """The best variant of a network; without one, of a residual stream with channels of very different ranges."""
    torch.manual_seed(0)
    settings = model_settings("net", "net", base, dict(limits))
    values = FixtureValues((network or Residual()).eval(), calibration=CALIBRATION, evaluation=evaluation)
    source = SourceUnderTest(settings, Spec("net", "net"), store, lambda _: None, values)
    return variant_under_test(source, "int8-best", "eval")


def searched(variant: VariantUnderTest) -> tuple[str, bool, int]:
    """The chosen recipe, whether it passes, and how many were tried."""
    search = variant.variant.provenance["best"]
    return search["recipe"], search["passes"], len(search["tried"])


def test_the_first_recipe_that_meets_the_limits_is_taken(store: Store) -> None:
    variant = best(store, min_sqnr=25.0)
    assert run_check(variant, "accuracy").outcome == PASSED
    search = variant.variant.provenance["best"]
    assert (search["recipe"], search["passes"], search["left_float"]) == ("int8+equalized+corrected", True, [])
    assert [(item["recipe"], item["passes"]) for item in search["tried"]] == [
        ("int8", False),
        ("int8+corrected", False),
        ("int8+equalized+corrected", True),
    ]
    outcomes = {check: run_check(variant, check).outcome for check in ("coverage", "weights", "conversion", "size")}
    assert set(outcomes.values()) == {PASSED}
    assert variant.label == "int8-best-eval"


def test_without_a_passing_recipe_the_best_is_judged(store: Store) -> None:
    variant = best(store, min_sqnr=300.0, suggest_time=0.0)
    search = variant.variant.provenance["best"]
    assert (search["recipe"], search["passes"]) == ("int8", False)
    assert run_check(variant, "accuracy").outcome == FAILED


def test_only_a_finished_search_is_stored(store: Store) -> None:
    assert searched(best(store, min_sqnr=24.0, suggest_time=0.0)) == ("int8", False, 1)
    finished = ("int8+equalized+corrected", True, 3)
    assert searched(best(store, min_sqnr=24.0)) == finished
    assert searched(best(store, min_sqnr=24.0, suggest_time=0.0)) == finished


def test_the_code_of_a_metric_decides(store: Store, tmp_path: Path) -> None:
    for value in (1.0, 0.0):
        base = tmp_path / str(value)
        base.mkdir()
        (base / "metric.py").write_text(f"def judge(outputs, labels):\n    return {value}\n")
        limits: dict[str, Any] = {"max_accuracy_drop": 0.0, "min_float_accuracy": 0.5, "suggest_time": 0.0}
        assert searched(best(store, base, metric="metric.py:judge", **limits)) == ("int8", value == 1.0, 1)


def test_labels_decide(store: Store) -> None:
    labels = np.zeros((32, 40), np.int64)
    keys = []
    for value in (0, 1):
        labels[16, 20] = value
        keys.append(search_key(best(store, evaluation={**HELD_OUT, "labels": labels.copy()})))
    assert [name for name in keys[0] if keys[0][name] != keys[1][name]] == ["data"]


def test_only_a_gate_can_choose(store: Store) -> None:
    source = best(store).source
    with pytest.raises(SourceError, match="int8-best"):
        make_variant(Job(source.prepared, recipe_named("int8-best"), "eval", (), source.choices), store, source.say)


class Exponential(nn.Module):
    """A layer reads exponentials, of which a logarithm takes the small ones back: no scale of int8 holds both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, bias=False)
        self.wide, self.head = nn.Conv2d(8, 64, 3, padding=1), nn.Conv2d(64, 10, 1)
        with torch.no_grad():
            self.stem.weight *= 4
            self.mix.weight.abs_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ten scores."""
        mixed = torch.log(self.mix(torch.exp(self.stem(x))) + 1e-4)
        scores: torch.Tensor = self.head(torch.relu(self.wide(mixed))).mean((2, 3))
        return scores


def test_the_layer_that_int8_ruins_stays_float(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_variant, "_IN_INT8", ("int8",))  # The search of all takes 15 seconds.
    torch.manual_seed(0)
    variant = best(store, network=Exponential(), min_sqnr=25.0)
    search = variant.variant.provenance["best"]
    assert [(item["passes"], len(item["skip"])) for item in search["tried"]] == [(False, 0), (True, 1)]
    (name,) = search["left_float"]
    assert variant.variant.left_float == (name,)
    assert [row.layer.name for row in variant.files.rows if not row.wanted] == [name]
    assert "mix" in name
    assert run_check(variant, "coverage").outcome == PASSED


class Dominant(Exponential):
    """The layer that int8 ruins holds most weights."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.wide = nn.Conv2d(8, 64, 3, 1, 1, bias=False), nn.Conv2d(64, 10, 1)
        self.head = nn.Conv2d(10, 10, 1)
        with torch.no_grad():
            self.mix.weight.abs_()


def test_a_layer_with_most_weights_stays_int8(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_variant, "_IN_INT8", ("int8",))
    torch.manual_seed(0)
    variant = best(store, network=Dominant(), min_sqnr=25.0)
    rows = variant.files.rows
    in_float = sum(row.layer.weight_count for row in rows if not row.wanted)
    assert in_float <= 0.25 * sum(row.layer.weight_count for row in rows)


def test_layers_that_the_user_skips_do_not_count_as_left_float(store: Store) -> None:
    torch.manual_seed(0)
    variant = best(store, network=Exponential(), min_sqnr=20.0, skip_layer=["*mix*", "*wide*"])
    assert searched(variant) == ("int8", True, 1)
    assert sum(row.layer.weight_count for row in variant.files.rows if row.wanted) < 1000
