"""The data of the charts in the HTML report. The script of the page draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pytest_mnnquant.findings.metric import METRICS
from pytest_mnnquant.findings.run_metrics import LatencyMetrics
from pytest_mnnquant.history.series import NamedStep, Row, VariantHistory
from pytest_mnnquant.measurements.chart_samples import TensorHistogram, WeightHistogram
from pytest_mnnquant.report.html_view import ModelView, VariantView
from pytest_mnnquant.report.model import Report

Json = dict[str, Any]
# The number of runs of each variant that are plotted.
_PLOTTED: Final = 200


def chart_data(models: Sequence[ModelView], report: Report) -> list[Json]:
    """One entry per model, in the order of the page."""
    return [_model(model, [past for past in report.history if past.model == model.name]) for model in models]


def _model(model: ModelView, histories: Sequence[VariantHistory]) -> Json:
    return {
        "name": model.name,
        "bytes": model.base.bytes if model.base else None,
        "variants": [_variant(variant) for variant in model.variants],
        "modes": [{"recipe": modes.recipe, "changes": dict(modes.changes)} for modes in model.modes],
        "history": [_history(history) for history in histories],
    }


def _variant(view: VariantView) -> Json:
    variant, charts = view.variant, view.variant.charts
    latency = variant.metrics(LatencyMetrics) or LatencyMetrics()
    return {
        "label": view.label,
        "bytes": variant.quantized.bytes if variant.quantized else None,
        "layers": [
            [layer.name, layer.title, layer.storage, layer.state, layer.bytes, layer.float_bytes, layer.sqnr]
            for layer in view.layers
        ],
        "losses": [
            [loss.name, loss.module or loss.name, loss.own_sqnr_db, loss.reached_sqnr_db] for loss in charts.losses
        ],
        "suspect": next((layer.name for layer in view.layers if layer.is_suspect), None),
        "weights": {name: _weights(histogram) for name, histogram in charts.weights.items()},
        "tensors": {name: _tensor(histogram) for name, histogram in charts.tensors.items()},
        "ends": charts.ends,
        "against": "reference export" if variant.is_export else "float",
        "ratios": charts.ratios,
        "ratio": [latency.latency_ratio, latency.latency_ratio_low, latency.latency_ratio_high],
    }


def _weights(histogram: WeightHistogram) -> Json:
    bars = {"float": histogram.source, "stored": histogram.stored}
    return {"low": histogram.low, "high": histogram.high, **bars}


def _tensor(histogram: TensorHistogram) -> Json:
    return {"low": histogram.low, "high": histogram.high, "float": histogram.source, "codes": histogram.codes}


def charted_runs(history: VariantHistory) -> tuple[Row, ...]:
    """The last runs that have metrics."""
    return tuple(row for row in history.rows if any(row.value(metric) is not None for metric in METRICS))[-_PLOTTED:]


def _history(history: VariantHistory) -> Json:
    rows = charted_runs(history)
    values = {metric.key: [row.value(metric) for row in rows] for metric in METRICS}
    return {
        "variant": history.variant,
        "times": [row.run.time.isoformat() for row in rows],
        "commits": [row.run.commit[:8] + "+" * row.run.dirty for row in rows],
        "figures": {name: of_runs for name, of_runs in values.items() if any(value is not None for value in of_runs)},
        "steps": [_step(step) for step in history.steps],
    }


def _step(step: NamedStep) -> list[str]:
    return [step.metric.key, step.commit.time.isoformat(), step.commit.name[:8]]
