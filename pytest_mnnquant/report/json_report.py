"""The JSON report (`--mnn-report=x.json`), schema 1: `docs/report.schema.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pytest_mnnquant.findings.dataclass_json import as_json
from pytest_mnnquant.report.model import BaselineReport, ModelReport, Report
from pytest_mnnquant.report.modes import ModeComparison, ModeMetrics
from pytest_mnnquant.report.target_table import TargetRow
from pytest_mnnquant.report.variant_report import CheckReport, ReportedFinding, VariantReport

SCHEMA = 1
Json = dict[str, Any]


def render(report: Report) -> str:
    """The report as JSON. NaN and infinity become null."""
    return json.dumps(json_value(report_json(report)), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def json_value(value: Any) -> Any:
    """The value with None for NaN and infinity, and with lists for tuples."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return value


def report_json(report: Report) -> Json:
    """The report in the form of the schema."""
    return {
        "schema": SCHEMA,
        "tool": dict(report.versions),
        "host": as_json(report.host),
        "strict": report.strict,
        "baseline": _baseline(report.baseline) if report.baseline else None,
        "models": [_model(model) for model in report.models],
    }


def _baseline(baseline: BaselineReport) -> Json:
    return {"path": baseline.path, "check": check_json(baseline.check)}


def _model(model: ModelReport) -> Json:
    targets = {"places": [_target_row(row) for row in model.targets]} if model.targets else {}
    return {
        "source": model.source,
        "file": model.file,
        "float": as_json(model.base),
        "name": model.name,
        "variants": [_variant(variant) for variant in model.variants],
        "modes": [_comparison(comparison) for comparison in model.modes],
        **targets,
    }


def _variant(variant: VariantReport) -> Json:
    made = {"coverage": variant.coverage, "bn_drift": variant.drift, "provenance": variant.provenance}
    where = {"target": variant.target, "worker": variant.worker}
    return {
        "recipe": variant.recipe,
        "mode": variant.mode,
        "quantized": as_json(variant.quantized),
        "params": as_json(variant.params),
        **(made if variant.quantized else {}),
        "layers": as_json(variant.layers),
        **{key: name for key, name in where.items() if name},
        "checks": [check_json(check) for check in variant.checks],
    }


def check_json(check: CheckReport) -> Json:
    """A check in the form of the schema."""
    return {
        "check": check.check,
        "outcome": check.outcome,
        "reason": check.reason or None,
        "metrics": _metrics(check),
        "ignored": check.ignored,
        "findings": [_finding(finding) for finding in check.findings],
        "steps": as_json(check.steps),
    }


def _metrics(check: CheckReport) -> Json:
    if check.not_applicable:
        return {"needless": True}
    return check.metrics.as_json() if check.metrics else {}


def _finding(finding: ReportedFinding) -> Json:
    return {
        "code": finding.code,
        "rule": finding.rule.name,
        "severity": finding.severity.value,
        "layer": finding.layer or None,
        "message": finding.message,
        "cause": finding.cause or None,
        "remedy": finding.fix or None,
        "follows": str(finding.follows) if finding.follows else None,
        "consequences": [{"check": effect.check, **_finding(effect)} for effect in finding.consequences],
    }


def _comparison(comparison: ModeComparison) -> Json:
    return {
        "recipe": comparison.recipe,
        "train": _mode(comparison.train),
        "eval": _mode(comparison.eval),
        "scale_change": dict(comparison.changes),
        "verdict": comparison.verdict,
    }


def _mode(mode: ModeMetrics) -> Json:
    return {
        "mode": mode.mode,
        "coverage": mode.coverage,
        "size_ratio": mode.size_ratio,
        "float_top1": mode.float_top1,
        "top1": mode.top1,
        "cosine": mode.cosine,
        "drift": mode.drift,
        "failed": list(mode.failed),
    }


def _target_row(row: TargetRow) -> Json:
    return {
        "variant": row.variant,
        "place": row.target,
        "metric": row.metric,
        "value": row.value,
        "cosine": row.cosine,
        "steps": row.steps,
        "latency": row.latency,
        "memory": row.memory,
    }
