"""The figures of a variant that are kept: of one run in the baseline, of all runs in history."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_mnnquant.findings.check_names import BASELINE
from pytest_mnnquant.findings.figures import REAL, WHOLE, Figures, label_of
from pytest_mnnquant.findings.finding import FAILED
from pytest_mnnquant.measurements.timing import LOW


def figures_of_report(report: Mapping[str, Any]) -> Iterator[Figures]:
    """The figures of each variant of a run, from the report that `report.json_report.build_report` makes.

    What a check did not tell itself, since it did not run, is taken from the baseline check, which asks them all.
    """
    for model in report["models"]:
        for variant in model["variants"]:
            own = figures_of(model, variant)
            (found,) = [check["metrics"] for check in variant["checks"] if check["check"] == BASELINE] or [{}]
            yield _filled(own, found.get("measured", {}))


def _filled(figures: Figures, measured: Mapping[str, Any]) -> Figures:
    """The figures, with those that are missing as they were measured."""
    found = {name: measured[name] for name in (*WHOLE, *REAL) if name in measured and getattr(figures, name) is None}
    if found.get("accuracy") is not None:
        found |= {name: measured[name] for name in ("metric", "lower_is_better")}
    return dataclasses.replace(figures, **found)


def figures_of(model: Mapping[str, Any], variant: Mapping[str, Any]) -> Figures:
    """The figures of one variant of a report."""
    checks = {check["check"]: check for check in variant["checks"]}
    metrics = {name: check["metrics"] for name, check in checks.items()}
    size, accuracy = metrics.get("size", {}), metrics.get("accuracy", {})
    value, metric, lower = _accuracy(accuracy)
    latency, memory = metrics.get("latency", {}), metrics.get("memory", {})
    which = "_low" if memory.get("memory_mode") == LOW else ""
    quantized, base = variant.get("quantized") or {}, model.get("float") or {}
    return Figures(
        model=model["name"],
        variant=label_of(variant),
        source=model.get("source") or "",
        size=size.get("quantized_bytes"),
        float_size=size.get("float_bytes"),
        coverage=metrics.get("coverage", {}).get("coverage"),
        accuracy=value,
        metric=metric,
        lower_is_better=lower,
        ratio=latency.get("latency_ratio"),
        ratio_low=latency.get("latency_ratio_low"),
        ratio_high=latency.get("latency_ratio_high"),
        memory=memory.get(f"session_bytes{which}"),
        float_memory=memory.get(f"float_session_bytes{which}"),
        layers={layer["name"]: layer["storage"] or "missing" for layer in variant.get("layers", [])},
        failed=tuple(name for name, check in checks.items() if check["outcome"] == FAILED),
        sha256=quantized.get("sha256") or "",
        float_sha256=base.get("sha256") or "",
        path=quantized.get("path") or "",
    )


def _accuracy(metrics: Mapping[str, Any]) -> tuple[float | None, str, bool]:
    """(value, metric, whether less is better)."""
    if task := metrics.get("task"):
        return task["quantized"], task["metric"], bool(task["lower_is_better"])
    cosines = [output["cosine"] for output in metrics.get("outputs", {}).values() if output["cosine"] is not None]
    return (min(cosines), "cosine", False) if cosines else (None, "", False)
