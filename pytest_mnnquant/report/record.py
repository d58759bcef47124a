"""The record of one item, which travels with its report from an xdist worker to the controller."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_mnnquant.findings.catalogue import check_named
from pytest_mnnquant.findings.check_metrics import Metrics
from pytest_mnnquant.findings.dataclass_json import as_json, from_json
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.measurements.chart_samples import ChartSamples
from pytest_mnnquant.measurements.step_cost import StepCost
from pytest_mnnquant.report.variant_report import CheckReport, ModelFile, ReportedFinding, VariantReport


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """One check of one variant of one model.

    `model` is the model's name, `source` its specification, `file` the path of its file (None for a module). `base` is
    the float model, `variant` the variant without checks. `order` is the position of the item in the run.
    """

    model: str
    source: str
    file: str | None
    base: ModelFile | None
    variant: VariantReport
    check: CheckReport
    charts: ChartSamples = field(default_factory=ChartSamples)
    order: int = 0

    def as_json(self) -> dict[str, Any]:
        """The record as JSON, for its way to the controller."""
        record: dict[str, Any] = as_json(self)
        return record

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CheckRecord:
        """The record from its JSON."""
        record: CheckRecord = from_json(cls, value)
        return dataclasses.replace(record, check=check_from_json(value["check"]))


def check_from_json(value: Mapping[str, Any]) -> CheckReport:
    """A check from its JSON."""
    check: CheckReport = from_json(CheckReport, {**value, "metrics": None})
    metrics = value["metrics"]
    return dataclasses.replace(check, metrics=None if metrics is None else _metrics(check.check, metrics))


def _metrics(check: str, value: Mapping[str, Any]) -> Metrics | None:
    kind = check_named(check).metrics_kind
    return kind.from_json(value) if kind else None


def reported(result: Result, variant: str = "", steps: tuple[StepCost, ...] = ()) -> CheckReport:
    """A result in the form of the report; `variant` is the label of its variant, `steps` what the check cost."""
    return CheckReport(
        check=result.check,
        outcome=result.outcome,
        findings=tuple(_reported_finding(finding, variant) for finding in result.findings),
        metrics=result.metrics,
        reason=result.reason,
        ignored=result.ignored,
        not_applicable=result.not_applicable,
        steps=steps,
    )


def _reported_finding(finding: Finding, variant: str) -> ReportedFinding:
    return ReportedFinding(
        id=finding.id,
        severity=finding.severity,
        message=finding.message,
        cause=finding.cause_text,
        fix=finding.fix,
        variant=variant,
        follows=finding.follows,
        consequences=tuple(_reported_finding(effect, variant) for effect in finding.consequences),
    )
