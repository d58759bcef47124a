"""The stored metrics of a variant: those of one run in the baseline, those of all runs in the history."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from pytest_mnnquant.findings.baseline_metrics import BaselineMetrics, Measured
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import FAILED
from pytest_mnnquant.findings.metric import METRICS, with_measured
from pytest_mnnquant.report.model import ModelReport
from pytest_mnnquant.report.variant_report import VariantReport


def figures_of_models(models: tuple[ModelReport, ...]) -> Iterator[Figures]:
    """The metrics of each variant of a run.

    Metrics of checks that did not run are taken from the baseline check, which runs all of them.
    """
    for model in models:
        for variant in model.variants:
            figures, baseline = figures_of(model, variant), variant.metrics(BaselineMetrics)
            yield _completed(figures, baseline.measured) if baseline and baseline.measured else figures


def _completed(figures: Figures, measured: Measured) -> Figures:
    """The metrics, with missing ones from the baseline check."""
    missing = [metric for metric in METRICS if metric.value(figures) is None]
    fields = (field for metric in missing for field in metric.fields)
    return dataclasses.replace(figures, **{field: getattr(measured, field) for field in fields})


def figures_of(model: ModelReport, variant: VariantReport) -> Figures:
    """The metrics of one variant of a report."""
    figures = Figures(
        model=model.name,
        variant=variant.label,
        source=model.source,
        layers={layer.name: layer.storage or "missing" for layer in variant.layers},
        failed=tuple(check.check for check in variant.checks if check.outcome == FAILED),
        sha256=(variant.quantized.sha256 or "") if variant.quantized else "",
        float_sha256=(model.base.sha256 or "") if model.base else "",
        path=variant.quantized.path if variant.quantized else "",
    )
    return with_measured(figures, (check.metrics for check in variant.checks if check.metrics))
