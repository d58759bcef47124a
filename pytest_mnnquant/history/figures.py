"""The figures of a variant that are kept: of one run in the baseline, of all runs in history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_mnnquant.checks.finding import FAILED


@dataclass(frozen=True)
class Figures:
    """One variant in one run; None is what was not measured.

    `size` and `float_size` are bytes. `accuracy` is the task metric named by `metric`, or, where there is none, the
    lowest mean cosine of an output ("cosine"). `ratio` is quantized / float latency, with its 95 % interval. `memory`
    and `float_memory` are bytes of MNN's session at memory mode 0. `layers` gives each layer's storage ("int8", "w8",
    "float32"). `failed` names the checks that failed. `sha256` and `float_sha256` are of the files.
    """

    model: str
    variant: str
    source: str = ""
    size: int | None = None
    float_size: int | None = None
    coverage: float | None = None
    accuracy: float | None = None
    metric: str = ""
    lower_is_better: bool = False
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    memory: int | None = None
    float_memory: int | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    sha256: str = ""
    float_sha256: str = ""
    path: str = ""


#: The figures that are numbers, in the order in which they are shown.
NUMBERS: Final = ("size", "coverage", "accuracy", "ratio", "memory")


def figures_of_report(report: Mapping[str, Any]) -> Iterator[Figures]:
    """The figures of each variant of a run, from the report that `report.json_report.build_report` makes."""
    for model in report["models"]:
        for variant in model["variants"]:
            yield figures_of(model, variant)


def figures_of(model: Mapping[str, Any], variant: Mapping[str, Any]) -> Figures:
    """The figures of one variant of a report."""
    checks = {check["check"]: check for check in variant["checks"]}
    metrics = {name: check["metrics"] for name, check in checks.items()}
    size, accuracy = metrics.get("size", {}), metrics.get("accuracy", {})
    value, metric, lower = _accuracy(accuracy)
    latency, memory = metrics.get("latency", {}), metrics.get("memory", {})
    quantized, base = variant.get("quantized") or {}, model.get("float") or {}
    label = variant["recipe"] + (f"[{variant['mode']}]" if variant.get("mode") else "")
    return Figures(
        model=model["name"],
        variant=label,
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
        memory=memory.get("session_bytes"),
        float_memory=memory.get("float_session_bytes"),
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
