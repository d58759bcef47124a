"""The data of the charts of an export: distributions of weights, and the pairs that were timed."""

from __future__ import annotations

from typing import Final

import numpy as np

from pytest_mnnquant.evidence.chart_samples import timed_ratios, weight_histogram
from pytest_mnnquant.evidence.export import ExportUnderTest
from pytest_mnnquant.evidence.steps import step
from pytest_mnnquant.llm.bound import BoundMatrix
from pytest_mnnquant.llm.matrix import decode_rows
from pytest_mnnquant.measurements.chart_samples import ChartSamples, WeightHistogram
from pytest_mnnquant.mnnfile.model import BadModel

#: Weights of each matrix, from its first rows on.
_MOST_WEIGHTS: Final = 1 << 16


def export_charts(case: ExportUnderTest, check: str) -> ChartSamples:
    """The chart data that a check of an export gives."""
    if check == "latency" and (speeds := case.timed_speeds) is not None:
        return ChartSamples(ratios=timed_ratios(speeds.token))
    evidence = case.readable_evidence
    if check != "weights" or evidence is None or not evidence.source.has_values:
        return ChartSamples()
    with step("gather the chart of weights"):
        histograms = {item.stored.name: _histogram(case, item) for item in evidence.binding.matrices}
    return ChartSamples(weights={name: item for name, item in histograms.items() if item is not None})


def _histogram(case: ExportUnderTest, bound: BoundMatrix) -> WeightHistogram | None:
    evidence = case.readable_evidence
    if evidence is None:
        return None
    stored, place = bound.stored, bound.source
    rows = min(stored.rows, max(8, _MOST_WEIGHTS // max(1, stored.columns)))
    try:
        values = decode_rows(stored, evidence.folder.data(stored.file), 0, rows)
        source = evidence.source.rows(place.weight, place.start, place.start + rows)
    except (BadModel, OSError):
        return None
    pair = [array.reshape(-1)[np.isfinite(array.reshape(-1))] for array in (source, values)]
    return weight_histogram(*pair) if all(array.size for array in pair) else None
