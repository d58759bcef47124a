"""Which layer is at fault, from what each adds and costs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from pytest_mnnquant.checks.accuracy.check import can_be_located, with_location
from pytest_mnnquant.checks.accuracy.layers import LayerLoss, Losses, OperatorLoss, decibels, located, ranked
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import FAILED, Finding, Result
from pytest_mnnquant.measurements.layer_errors import LayerErrors, OperatorErrors
from tests.golden_text import check_golden
from tests.results import known, measured, output

FINE = LayerErrors(1e-5, 3e-5, 5e-5, 1e-4, 1e-4, 0.0, 0.0, True)


def layer(name: str, module: str = "", alone: float | None = None, **errors: Any) -> LayerLoss:
    return LayerLoss(name, module, dataclasses.replace(FINE, **errors), alone)


def operator(name: str, entered: float, left: float, own: float = 0.0, alone: float | None = None) -> OperatorLoss:
    return OperatorLoss(name, "Pooling", OperatorErrors(entered, left, own), alone)


HEALTHY = (layer("a"), layer("b"), layer("c"))


def test_noise_in_decibels() -> None:
    assert decibels(0.01) == pytest.approx(20)
    assert decibels(0.0) == math.inf
    assert decibels(math.inf) == -math.inf


def test_what_a_layer_costs_alone_counts_more_than_what_it_adds() -> None:
    gate = layer("gate", own=0.5, alone=1e-4)
    head = layer("head", own=0.01, alone=0.02)
    untried = layer("other", own=0.9)
    assert [one.name for one in ranked(Losses((gate, untried, head)))] == ["head", "gate", "other"]


@pytest.mark.parametrize(
    ("part", "errors"),
    [
        ("weights", {"weights": 0.09, "input": 0.095, "own": 0.1}),
        ("input-clipped", {"input": 0.09, "own": 0.1, "clipped_in": 0.3}),
        ("input-too-coarse", {"input": 0.09, "own": 0.1}),
        ("output-clipped", {"own": 0.1, "clipped_out": 0.2}),
        ("output-too-coarse", {"own": 0.1}),
    ],
)
def test_the_part_that_makes_the_error_is_named(part: str, errors: dict[str, float]) -> None:
    bad = layer("/conv_3", "features.3.conv", alone=0.5, **errors)
    place = located(Losses((*HEALTHY, bad)))
    assert place is not None
    assert place.layer == "/conv_3"
    check_golden(f"accuracy/layer-{part}", place.cause.text)
    assert place.cause.id == "layer-adds-error"


def test_the_task_metric_of_a_layer_alone_is_told_where_it_falls() -> None:
    bad = dataclasses.replace(layer("x", own=0.1, alone=0.5), alone_metric=0.25)
    place = located(Losses((bad,), metric_label="top-1", exact_metric=0.99))
    assert place is not None
    check_golden("accuracy/the-task-metric-of-a-layer-alone-is-told", place.cause.text)
    same = located(Losses((dataclasses.replace(bad, alone_metric=0.99),), metric_label="top-1", exact_metric=0.99))
    assert same is not None
    assert "top-1" not in same.cause.text


def test_the_first_of_several_bad_layers_is_named_too() -> None:
    place = located(
        Losses((layer("a"), layer("b", "stem", own=0.2), layer("c", own=0.3, alone=0.4), layer("d", own=0.25)))
    )
    assert place is not None
    assert place.layer == "c"
    check_golden("accuracy/the-first-of-several-bad-layers-is-named-too", place.cause.text)
    assert place.others == ("d", "b", "a")


def test_an_operator_without_weights_that_ruins_what_it_is_given_is_at_fault() -> None:
    """MNN's int8 MaxPool on x86: 38 dB enter, 12 dB leave."""
    operators = (operator("raster", 1e-4, 1e-4), operator("pool", 1e-4, 0.06), operator("pool2", 0.06, 0.07))
    place = located(Losses(HEALTHY, operators))
    assert place is not None
    assert place.layer == "pool"
    check_golden("accuracy/an-operator-without-weights-that-ruins", place.cause.text)
    assert place.cause.id == "operator-computes-otherwise"


def test_an_operator_is_no_suspect_where_a_layer_explains_more() -> None:
    operators = (operator("add", 1e-4, 0.02),)
    place = located(Losses((*HEALTHY, layer("bad", own=0.9, alone=0.8)), operators))
    assert place is not None
    assert place.layer == "bad"


def test_an_operator_that_costs_more_than_every_layer_is_at_fault() -> None:
    operators = (operator("add", 1e-4, 2e-4, 1e-4, 3e-4), operator("mean", 1e-4, 6e-3, 5e-3, 4e-3))
    layers = (*HEALTHY, layer("head", own=1e-3, alone=2e-3))
    place = located(Losses(layers, operators))
    assert place is not None
    assert (place.layer, place.cause.id, place.noise) == ("mean", "operator-adds-error", 4e-3)
    assert place.others[0] == "head"
    check_golden("accuracy/an-operator-that-costs-more-than-every-layer", place.cause.text)
    harmless = dataclasses.replace(operators[1], alone=1e-3)
    other = located(Losses(layers, (operators[0], harmless)))
    assert other is not None
    assert other.layer == "head"


def test_the_operator_that_joins_a_layers_input_is_named() -> None:
    bad = dataclasses.replace(layer("head", alone=0.5, input=0.09, own=0.1), joins="/Concat_1")
    place = located(Losses((*HEALTHY, bad)))
    assert place is not None
    assert "/Concat_1" in place.cause.text


def test_nothing_is_accused_where_nothing_adds_an_error() -> None:
    exact = layer("a", weights=0.0, input=0.0, own=0.0)
    unseen = layer("b", own=0.9, measured=False)
    assert located(Losses((exact, unseen))) is None
    assert located(Losses(())) is None


def failed(code: str = "MNQ701", **more: Any) -> Result:
    return Result.from_findings("accuracy", [Finding(code, "worse", **more)], AccuracyMetrics(samples=5))


def test_the_layer_goes_into_finding_and_report() -> None:
    losses = Losses((*HEALTHY, layer("bad", own=0.5, alone=0.5)))
    result = with_location(failed(cause=Cause("known", "known")), losses)
    (finding,) = result.findings
    assert result.outcome == FAILED
    assert finding.layer == "bad"
    check_golden("accuracy/the-layer-goes-into-finding-and-report", finding.cause_text)
    assert finding.cause_id == "known+layer-adds-error"
    assert measured(AccuracyMetrics, result).suspect == "bad"
    assert [row.name for row in known(measured(AccuracyMetrics, result).layers)] == ["a", "b", "c", "bad"]
    assert known(measured(AccuracyMetrics, result).layers)[3].own_sqnr_db == pytest.approx(3.01, abs=0.01)


def test_without_a_location_the_result_stays_as_it_is() -> None:
    assert with_location(failed(), None) == failed()
    assert with_location(failed(), Losses(())) == failed()
    passed = Result.from_findings("accuracy", [])
    assert with_location(passed, Losses((layer("bad", own=0.5),))) is passed


def test_layers_that_make_nan_of_exact_inputs_come_first_in_order_of_execution() -> None:
    bad = layer("bad", own=0.9, alone=0.9)
    first, second = layer("first", own=math.inf, weights=math.inf, input=math.inf), layer("second", own=math.inf)
    assert [one.name for one in ranked(Losses((bad, first, second)))] == ["first", "second", "bad"]
    place = located(Losses((bad, first, second)))
    assert place is not None
    check_golden("accuracy/layers-that-make-nan-of-exact-inputs-come", place.cause.text)
    assert (place.layer, place.cause.id) == ("first", "layer-makes-not-finite")


def test_a_broken_output_names_the_layer_that_breaks_it_alone() -> None:
    broken = failed("MNQ704")
    assert with_location(broken, Losses((layer("dead", own=1.0, alone=1.0),))).findings[0].layer == "dead"
    assert with_location(broken, Losses((layer("noisy", own=0.01, alone=0.01),))) == broken


def test_no_layer_is_named_that_explains_nothing_of_the_loss() -> None:
    """Swapped outputs are wrong altogether, while every layer is nearly exact."""
    metrics = AccuracyMetrics(outputs={"y": dataclasses.replace(output(0.5), centred_sqnr_db=-3.0)})
    result = Result.from_findings("accuracy", [Finding("MNQ702", "unlike")], metrics)
    assert with_location(result, Losses((layer("a", own=1e-5, alone=1e-5),))) == result
    assert with_location(result, Losses((layer("a", own=0.1, alone=0.1),))).findings[0].layer == "a"


def test_only_what_a_layer_can_cause_is_located() -> None:
    assert can_be_located(failed("MNQ701"))
    assert can_be_located(failed("MNQ703"))
    assert not can_be_located(failed("MNQ708"))
    assert not can_be_located(Result.from_findings("accuracy", []))
