"""What checks measured: typed, in the JSON form of the report, and back from records that travelled."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics, TargetDifference
from pytest_mnnquant.findings.baseline_metrics import BaselineMetrics, Compared
from pytest_mnnquant.findings.check_metrics import Metrics, metrics_of
from pytest_mnnquant.findings.file_metrics import (
    ConversionMetrics,
    CoverageMetrics,
    SizeMetrics,
    StepMetrics,
    StepOutput,
)
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.findings.run_metrics import HostFacts, LatencyMetrics, TimingConditions
from tests.results import accuracy, coverage, memory, size, task

STEP = StepMetrics("PyTorch", "ONNX", {"y": StepOutput(0.1, None, 20.0, 0.5, None)})
EXAMPLES = (
    size(2.0),
    coverage(0.5),
    memory(0.25),
    ConversionMetrics(1, 0.1, (STEP,), None, ("float .mnn",), 3, 0),
    LatencyMetrics(pairs=5),
    LatencyMetrics(0.5, 0.4, 0.6, 100, settings=TimingConditions(1, "low", 0, 1), host=HostFacts("a", "b", ("c",), ())),
    accuracy(task("top-1", 0.9, 0.8), y=0.99, z=None),
    dataclasses.replace(accuracy(y=0.5), difference=TargetDifference(1.0, {"y": 1.0}), next_suspects=()),
    AccuracyMetrics(),
    BaselineMetrics(compared={"size": Compared(5, None)}, failed=()),
)


@pytest.mark.parametrize("metrics", EXAMPLES, ids=lambda one: type(one).__name__)
def test_metrics_survive_the_way_through_json(metrics: Metrics) -> None:
    carried = json.loads(json.dumps(metrics.as_json()))
    assert type(metrics).from_json(carried) == metrics
    assert carried == metrics.as_json()


def test_what_was_not_measured_is_left_out_and_what_has_no_value_is_null() -> None:
    assert LatencyMetrics(pairs=5).as_json() == {"pairs": 5}
    assert AccuracyMetrics().as_json() == {}
    assert memory(0.5).as_json()["peak_bytes"] is None


def test_keys_are_those_of_the_report_in_its_order() -> None:
    found = accuracy(task("top-1", 0.9, 0.8), y=0.5).as_json()
    assert list(found) == ["samples", "outputs", "task"]
    assert list(found["task"])[:4] == ["metric", "label", "float", "quantized"]
    assert list(STEP.outputs["y"].__dict__) == ["relative_error", "cosine", "sqnr_db", "top1_agreement", "equal"]
    (step,) = ConversionMetrics(1, None, (STEP,), None, (), 1, 0).as_json()["chain"]
    assert list(step) == ["from", "to", "outputs"]


def test_a_missing_key_is_an_error() -> None:
    with pytest.raises(TypeError):
        SizeMetrics.from_json({"float_bytes": 1})


def test_metrics_are_found_by_their_kind() -> None:
    results = [Result.from_findings("size", [], size(2.0)), Result.from_findings("coverage", [], coverage(0.5))]
    assert metrics_of(CoverageMetrics, results) == coverage(0.5)
    assert metrics_of(LatencyMetrics, results) is None


def test_the_cosine_of_a_model_is_its_worst_output() -> None:
    assert accuracy(a=0.9, b=0.5, c=None).cosine == 0.5
    assert accuracy(c=None).cosine is None
