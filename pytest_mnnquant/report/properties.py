"""The metrics of a check as properties of its test. JUnit files contain them; GitLab and Jenkins show them."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import IN_JUNIT
from pytest_mnnquant.report.variant_report import CheckReport, VariantReport
from pytest_mnnquant.report.width import shown


def properties(model: str, variant: VariantReport, check: CheckReport) -> Iterator[tuple[str, str]]:
    """Names and values: model, variant and check, its outcome, the rules of its findings, and its metrics."""
    yield "mnn.model", model
    yield "mnn.recipe", variant.recipe
    if variant.mode:
        yield "mnn.mode", variant.mode
    if variant.target:
        yield "mnn.target", variant.target
    yield "mnn.check", check.check
    yield "mnn.outcome", check.outcome
    if check.findings:
        yield "mnn.rules", " ".join(dict.fromkeys(finding.code for finding in check.findings))
    yield from _metrics(check)


def _metrics(check: CheckReport) -> Iterator[tuple[str, str]]:
    for name, value in (check.metrics.marked(IN_JUNIT) if check.metrics else {}).items():
        if value is not None:
            yield f"mnn.{name}", f"{value:.6g}"
    if isinstance(check.metrics, AccuracyMetrics):
        yield from _accuracy(check.metrics)


def _accuracy(accuracy: AccuracyMetrics) -> Iterator[tuple[str, str]]:
    if task := accuracy.task:
        yield "mnn.metric", task.label
        yield "mnn.accuracy", f"{task.quantized:.6g}"
        yield "mnn.float_accuracy", f"{task.reference:.6g}"
    for name, output in accuracy.outputs.items():
        if output.cosine is not None:
            yield f"mnn.cosine.{shown(name)}", f"{output.cosine:.6g}"
