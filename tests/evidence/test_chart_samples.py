"""What is gathered for the HTML report, from real variants of real models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.attempt import Attempt
from pytest_mnnquant.evidence.chart_samples import BINS, chart_samples
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.dataclass_json import as_json, from_json
from pytest_mnnquant.measurements.chart_samples import ChartSamples
from pytest_mnnquant.measurements.timing import TimingSettings
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.sources.spec import parse_spec
from tests.conftest import FIXTURES, quietly


@pytest.fixture(scope="module")
def gate(store: Store) -> SourceUnderTest:
    spec = parse_spec("digits_cnn.py:build", FIXTURES)
    return SourceUnderTest(model_settings(spec.text, "digits", FIXTURES, {}), spec, store, quietly)


@pytest.fixture(scope="module")
def case(gate: SourceUnderTest) -> VariantUnderTest:
    return VariantUnderTest(gate, recipe_named("int8"), "eval")


def values(low: float, high: float, counts: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation of what a histogram holds."""
    places = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    mean = float(np.average(places, weights=counts))
    return mean, float(np.average(np.square(places - mean), weights=counts)) ** 0.5


def test_weights_are_those_of_both_files(case: VariantUnderTest) -> None:
    found = chart_samples(case, "weights").weights
    assert len(found) == len(case.files.match.pairs) == 4
    for layer, stored in case.files.match.pairs:
        bars = found[layer.name]
        for counts, weights in (
            (bars.source, case.variant.base.decoded(layer)),
            (bars.stored, case.model.decoded(stored)),
        ):
            mean, deviation = values(bars.low, bars.high, counts)
            assert deviation == pytest.approx(float(weights.std()), rel=0.05)
            assert mean == pytest.approx(float(weights.mean()), abs=0.1 * deviation)


def test_activations_are_the_float_models_with_the_range_of_the_codes(case: VariantUnderTest) -> None:
    found = chart_samples(case, "calibration")
    scales = {row.name: (row.scale_in, row.scale_out) for row in case.report.layers}
    for name, (entering, leaving) in found.ends.items():
        for tensor, scale in zip((entering, leaving), scales[name], strict=True):
            codes = found.tensors[tensor].codes
            assert codes is not None
            assert scale is not None
            low, high = codes
            assert (high - low) / scale == pytest.approx(254, abs=1)
    data = case.source.prepared.evaluation
    assert data is not None
    (image,) = data.inputs.values()
    first = found.tensors[next(iter(found.ends.values()))[0]]
    inputs = [one for one in found.tensors.values() if one.high <= image.max() and one.low == image.min()]
    assert inputs, first


def test_errors_are_those_that_the_accuracy_check_would_find(case: VariantUnderTest) -> None:
    found = chart_samples(case, "accuracy")
    known = case.runs.known_losses
    assert known is not None
    assert [loss.name for loss in found.losses] == [layer.name for layer in known.layers]
    assert all(loss.reached_sqnr_db < 60 for loss in found.losses)


def test_the_worst_samples_are_those_that_lose_most(case: VariantUnderTest) -> None:
    views = chart_samples(case, "accuracy").views
    data = case.source.prepared.evaluation
    assert data is not None
    assert data.labels is not None
    (name,) = case.source.float_run.outputs
    exact, output = case.source.float_run.outputs[name], case.runs.exact_run[0].outputs[name]
    lost = (exact.argmax(1) == data.labels).astype(int) - (output.argmax(1) == data.labels)
    noise = np.square(exact - output).sum(1)
    assert [view.sample for view in views] == np.lexsort((-noise, -lost))[:4].tolist()
    titles = [panel.title for panel in views[0].panels]
    assert titles == ["input", "float and quantized", "difference"]  # Of an image and ten scores.


def test_pairs_are_those_that_were_timed(case: VariantUnderTest) -> None:
    assert chart_samples(case, "latency") == ChartSamples()
    times = case.costs.times(TimingSettings(budget=0.5))
    ratios = chart_samples(case, "latency").ratios
    assert len(ratios) == min(500, len(times.reference))
    assert np.median(ratios) == pytest.approx(float(np.median(times.candidate / times.reference)), rel=0.05)


def test_it_travels_as_json_and_is_small(case: VariantUnderTest) -> None:
    for check in ("weights", "calibration", "accuracy", "latency"):
        samples = chart_samples(case, check)
        text = json.dumps(as_json(samples))
        assert from_json(ChartSamples, json.loads(text)) == samples
        assert len(text) < 4 * 4000  # 4 layers


def test_other_checks_have_nothing_to_show(case: VariantUnderTest) -> None:
    assert chart_samples(case, "size") == ChartSamples()


def test_without_data_there_is_a_reason(case: VariantUnderTest) -> None:
    prepared = dataclasses.replace(case.source.prepared, calibration=None, evaluation=None)
    blind = SourceUnderTest(case.source.settings, case.source.spec, case.source.store, quietly)
    blind.__dict__["_prepared"] = Attempt(prepared)
    other = VariantUnderTest(blind, case.recipe, "eval", made=case.variant)
    assert set(as_json(chart_samples(other, "accuracy"))) == {"unavailable"}
    assert set(as_json(chart_samples(other, "calibration"))) == {"unavailable"}


def test_what_takes_too_long_is_said_and_fails_nothing(case: VariantUnderTest) -> None:
    settings = dataclasses.replace(case.source.settings, timeout=1e-6)
    hasty = SourceUnderTest(settings, case.source.spec, case.source.store, quietly)
    hasty.__dict__["_prepared"] = Attempt(case.source.prepared)
    other = VariantUnderTest(hasty, case.recipe, "eval", made=case.variant)
    assert "1e-06 s" in chart_samples(other, "calibration").unavailable["calibration"]
    assert "1e-06 s" in chart_samples(other, "accuracy").unavailable["accuracy"]
