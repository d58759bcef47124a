"""Gathers the data of charts: distributions, timed pairs, the error that each layer adds.

The data are gathered only for a report with charts, with the check that uses the same evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.evidence.steps import UNUSABLE, Unusable, step
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.catalogue import check_named
from pytest_mnnquant.findings.check import load
from pytest_mnnquant.measurements.chart_samples import ChartSamples, TensorHistogram, WeightHistogram
from pytest_mnnquant.measurements.dataset import spread_evenly
from pytest_mnnquant.measurements.timing import PairedTimes
from pytest_mnnquant.mnnfile.model import BadModel, TensorQuant
from pytest_mnnquant.mnnfile.storage import Floats
from pytest_mnnquant.recipes.mnn_support import can_observe
from pytest_mnnquant.runtime.inference import tensor_histograms, tensor_ranges

BINS: Final = 48
#: Bars count values per this number; a single value in a bin is visible.
WHOLE: Final = 100_000
_MOST_WEIGHTS: Final = 1 << 16
_MOST_SAMPLES: Final = 32
_MOST_PAIRS: Final = 500
# Seconds for data that no check needs: only charts run a passing variant layer by layer.
_AFFORDABLE: Final = 60.0


def chart_samples(case: VariantUnderTest, check: str) -> ChartSamples:
    """The chart data of this check of a variant; `unavailable` is the reason if there are none."""
    chart = check_named(check).chart
    if not chart or case.is_unusable:
        return ChartSamples()
    gather: Callable[[VariantUnderTest], ChartSamples] = load(chart)
    try:
        with step(f"gather the chart of {check}"):
            return gather(case)
    except (*UNUSABLE, Unusable) as error:  # A missing chart must not fail a check.
        return _unavailable(check, str(error))


def _unavailable(check: str, reason: str) -> ChartSamples:
    return ChartSamples(unavailable={check: reason})


def weight_samples(case: VariantUnderTest) -> ChartSamples:
    """Weights of each layer, in the float model and as stored; a random sample of large layers."""
    base, model = case.variant.base, case.model
    histograms: dict[str, WeightHistogram] = {}
    for layer, stored in case.files.match.pairs:
        if len(layer.weights) != 1 or len(stored.weights) != 1:
            continue
        try:
            pair = [base.decoded(layer).reshape(-1), model.decoded(stored).reshape(-1)]
        except BadModel:
            continue
        pair = [values[np.isfinite(values)] for values in map(_thinned, pair)]
        if all(values.size for values in pair):
            histograms[layer.name] = weight_histogram(*pair)
    return ChartSamples(weights=histograms)


def weight_histogram(source: Floats, stored: Floats) -> WeightHistogram:
    """The distributions of a layer's weights; both arrays have one dimension and finite values."""
    low = min(float(source.min()), float(stored.min()))
    high = max(float(source.max()), float(stored.max()))
    bars = [np.histogram(values, BINS, _bounds(low, high))[0] for values in (source, stored)]
    return WeightHistogram(*_written_bounds(low, high), source=_shares(bars[0]), stored=_shares(bars[1]))


def _thinned(values: Floats) -> Floats:
    if values.size <= _MOST_WEIGHTS:
        return values
    return values[np.random.default_rng(0).integers(0, values.size, _MOST_WEIGHTS)]


def _bounds(low: float, high: float) -> tuple[float, float]:
    """Ends of a histogram; for a single value, an interval around it."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _written_bounds(low: float, high: float) -> tuple[float, float]:
    """The ends of a histogram, rounded to the resolution of a chart."""
    low, high = _bounds(low, high)
    return float(f"{low:.6g}"), float(f"{high:.6g}")


def _shares(counts: npt.NDArray[Any]) -> tuple[int, ...]:
    whole = counts.sum() or 1
    return tuple(int(max(1, round(count * WHOLE / whole))) if count else 0 for count in counts.tolist())


def activation_samples(case: VariantUnderTest) -> ChartSamples:
    """Values of each layer's input and output in the float model, with the range that the variant's codes cover."""
    source, variant = case.source.prepared, case.variant
    data = source.evaluation or source.calibration
    layers = [(layer, stored) for layer, stored in case.files.match.pairs if can_observe(layer) and can_observe(stored)]
    if data is None:
        return _unavailable("calibration", "no calibration or evaluation data were given")
    if not layers:
        return ChartSamples()
    ops, samples = [layer for layer, _ in layers], data.spread(_MOST_SAMPLES).inputs
    options = source.options(min(_AFFORDABLE, case.source.settings.timeout))
    ranges = tensor_ranges(variant.base, ops, samples, options)
    with np.errstate(invalid="ignore"):
        bounds = np.stack([np.fmin.reduce(ranges[..., 0]), np.fmax.reduce(ranges[..., 1])], -1)
    bounds[~np.isfinite(bounds).all(-1)] = 0
    counts = tensor_histograms(variant.base, ops, bounds, BINS, samples, options)
    names, quants = variant.base.tensor_names, variant.model.tensor_quants
    tensors: dict[str, TensorHistogram] = {}
    ends: dict[str, tuple[str, str]] = {}
    for number, (layer, stored) in enumerate(layers):
        sides = ((layer.inputs[0], stored.inputs[0]), (layer.outputs[0], stored.outputs[0]))
        ends[layer.name] = (names[layer.inputs[0]], names[layer.outputs[0]])
        for side, (tensor, index) in enumerate(sides):
            if counts[number, side].any() and names[tensor] not in tensors:
                quant = quants.get(index)
                tensors[names[tensor]] = TensorHistogram(
                    *_written_bounds(*bounds[number, side].tolist()),
                    source=_shares(counts[number, side]),
                    codes=_code_range(quant) if quant else None,
                )
    return ChartSamples(tensors=tensors, ends=ends)


def _code_range(quant: TensorQuant) -> tuple[float, float]:
    """The smallest and the largest value that the codes of a tensor represent."""
    return (quant.low - quant.zero) * quant.scale, (quant.high - quant.zero) * quant.scale


def layer_loss_samples(case: VariantUnderTest) -> ChartSamples:
    """The error that each layer adds, in the order of execution."""
    if case.source.prepared.evaluation is None:
        return _unavailable("accuracy", "no evaluation data were given")
    losses = case.runs.known_losses or case.runs.losses(None, _AFFORDABLE)
    if losses is None:
        return _unavailable("accuracy", "MNN does not expose the layers of this model while it runs")
    return ChartSamples(losses=tuple(layer.metrics for layer in losses.layers if layer.errors.measured))


def timed_pairs(case: VariantUnderTest) -> ChartSamples:
    """Timed pairs of a variant."""
    times = case.costs.known_times
    return ChartSamples() if times is None else ChartSamples(ratios=timed_ratios(times))


def timed_ratios(times: PairedTimes) -> tuple[float, ...]:
    """Ratios of pairs in the order of the run, thinned out evenly if there are many."""
    ratios = times.candidate / times.reference
    thinned = ratios[spread_evenly(len(ratios), _MOST_PAIRS)].tolist()
    return tuple(float(f"{ratio:.4g}") for ratio in thinned)
