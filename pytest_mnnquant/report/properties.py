"""What a check measured as properties of its test: JUnit files carry them, and GitLab and Jenkins show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

# Figures that are one number, by the names they have in the report.
_NUMBERS: Final = ("size_ratio", "coverage", "latency_ratio", "latency_ratio_low", "latency_ratio_high", "memory_ratio")


def properties(
    model: str, recipe: str, mode: str | None, check: Mapping[str, Any], target: str = ""
) -> Iterator[tuple[str, str]]:
    """Names and values: whose check it is, how it ended, by which rules, and its figures."""
    yield "mnn.model", model
    yield "mnn.recipe", recipe
    if mode:
        yield "mnn.mode", mode
    if target:
        yield "mnn.target", target
    yield "mnn.check", check["check"]
    yield "mnn.outcome", check["outcome"]
    if check["findings"]:
        yield "mnn.rules", " ".join(dict.fromkeys(finding["code"] for finding in check["findings"]))
    metrics = check["metrics"]
    for name in _NUMBERS:
        if isinstance(metrics.get(name), int | float):
            yield f"mnn.{name}", f"{metrics[name]:.6g}"
    if task := metrics.get("task"):
        yield "mnn.metric", str(task["label"])
        yield "mnn.accuracy", f"{task['quantized']:.6g}"
        yield "mnn.float_accuracy", f"{task['float']:.6g}"
    for output, figures in (metrics.get("outputs") or {}).items():
        if figures.get("cosine") is not None:
            yield f"mnn.cosine.{output}", f"{figures['cosine']:.6g}"
