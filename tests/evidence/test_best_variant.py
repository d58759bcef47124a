"""`int8-best` takes the first recipe that meets the limits, and says what it tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
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


def best(store: Store, **limits: float) -> VariantUnderTest:
    """The best variant of a network whose residual stream has channels of very different ranges."""
    torch.manual_seed(0)
    settings = model_settings("net", "net", FIXTURES, dict(limits))
    values = FixtureValues(model=Residual().eval(), calibration=CALIBRATION, evaluation=HELD_OUT)
    source = SourceUnderTest(settings, Spec("net", "net"), store, lambda _: None, values)
    return variant_under_test(source, "int8-best", "eval")


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


def test_only_a_gate_can_choose(store: Store) -> None:
    source = best(store).source
    with pytest.raises(SourceError, match="int8-best"):
        make_variant(Job(source.prepared, recipe_named("int8-best"), "eval", (), source.choices), store, source.say)
