"""Records of runs that never were: as many layers, and with such names, as a test wants."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pytest_mnnquant.evidence.chart_samples import BINS
from pytest_mnnquant.findings.check_metrics import LatencyMetrics, LayerLossMetrics, Metrics
from pytest_mnnquant.findings.dataclass_json import as_json
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.findings.rules import RULES
from pytest_mnnquant.history.series import VariantHistory, histories
from pytest_mnnquant.history.storage import Run
from pytest_mnnquant.measurements.chart_samples import ChartSamples, TensorHistogram, WeightHistogram
from tests.results import coverage, size

CHECKS = ("conversion", "params", "coverage", "weights", "size", "calibration", "accuracy", "latency")


def record(check: Result, label: str = "int8[eval]", model: str = "digits") -> dict[str, Any]:
    """The record of an item that ran a check; `label` is that of the variant, without a target."""
    recipe, _, mode = label.rstrip("]").partition("[")
    return {
        "model": model,
        "source": f"{model}.py:build",
        "file": f"/home/{model}.py",
        "float": file(f"{model}.float.mnn", 40),
        "variant": variant(recipe, mode or None),
        "check": check.as_record(),
        "order": 0,
    }


def file(path: str, size: int) -> dict[str, Any]:
    """A model's file as a record holds it."""
    return {"path": path, "bytes": size, "sha256": "0" * 64, "uuid": ""}


def variant(recipe: str = "int8", mode: str | None = "eval", **more: Any) -> dict[str, Any]:
    """A variant as a record holds it."""
    own: dict[str, Any] = {"recipe": recipe, "mode": mode, "quantized": file("net.mnn", 10), "params": None}
    return {**own, "coverage": 1.0, "bn_drift": 0.0, "provenance": {}, "layers": [], **more}


def finding(code: str, layer: str | None = None, severity: str = "error", **more: Any) -> dict[str, Any]:
    """A finding as a record holds it."""
    own = {"code": code, "rule": RULES[code].name, "severity": severity, "layer": layer}
    own |= {"message": f"{layer} is wrong", "cause": "because", "remedy": "change it"}
    return {**own, "follows": None, "follows_id": None, "consequences": [], **more}


def layer(name: str, place: int = 1, *, quantized: bool = True, skipped: bool = False) -> dict[str, Any]:
    """A layer as a record holds it; the later ones are smaller."""
    weights = 4_000_000 // (place + 3)
    return {
        "name": name,
        "module": f"blocks.{place}",
        "op": "Convolution",
        "weights": weights,
        "storage": "int8" if quantized else "float32",
        "bits": 8 if quantized else 32,
        "bytes": weights if quantized else 4 * weights,
        "float_bytes": 4 * weights,
        "scale_in": 0.1,
        "scale_out": 0.2,
        "quantized": quantized,
        "skipped": skipped,
    }


def records(
    layers: Sequence[dict[str, Any]],
    findings: Sequence[dict[str, Any]] = (),
    *,
    model: str = "net",
    source: str = "net.py:build",
    modes: Sequence[str | None] = ("train", "eval"),
) -> list[dict[str, Any]]:
    """A run of one recipe in these modes; `findings` are those of the coverage check."""
    size = sum(one["bytes"] for one in layers) + 5000
    base, quantized = file(f"{source}.float.mnn", 4 * size), file(f"{source}.mnn", size)
    made: list[dict[str, Any]] = []
    for mode in modes:
        for check in CHECKS:
            of_check = list(findings) if check == "coverage" else []
            failed = any(one["severity"] == "error" for one in of_check)
            result = {
                "check": check,
                "outcome": "failed" if failed else "passed",
                "reason": None,
                "metrics": _METRICS[check].as_json() if check in _METRICS else {},
                "ignored": {},
                "findings": of_check,
            }
            about = {"model": model, "source": source, "file": None, "float": base}
            about["variant"] = variant("int8", mode, quantized=quantized, layers=list(layers))
            made.append({**about, "check": result, "charts": as_json(_charts(check, layers)), "order": len(made)})
    return made


_METRICS: dict[str, Metrics] = {
    "coverage": coverage(1.0),
    "size": size(4.0),
    "latency": LatencyMetrics(0.5, 0.48, 0.52, pairs=150, float_seconds=0.002, quantized_seconds=0.001),
}


def _charts(check: str, layers: Sequence[dict[str, Any]]) -> ChartSamples:
    names = [one["name"] for one in layers]
    # No two bars are alike, so that packing gains no more than it does in life.
    bars = [tuple((place * 7919 + bar * 104729) % 4001 + 1 for bar in range(BINS)) for place in range(len(names))]
    if check == "weights":
        return ChartSamples({name: WeightHistogram(-1.0, 1.0, counts, counts[::-1])
                             for name, counts in zip(names, bars, strict=True)})  # fmt: skip
    if check == "calibration":
        tensors = {f"{name}:out": TensorHistogram(0.0, 6.5, counts, (0.0, 6.0))
                   for name, counts in zip(names, bars, strict=True)}  # fmt: skip
        before = [f"{name}:out" for name in (names[:1] + names)[: len(names)]]
        ends = {name: (entering, f"{name}:out") for name, entering in zip(names, before, strict=True)}
        return ChartSamples(tensors=tensors, ends=ends)
    if check == "accuracy":
        losses = (
            LayerLossMetrics(name, None, 40.0, 35.0, 30.0 + place % 17, 25.0 + place % 13, 0.0, 0.001, None, None)
            for place, name in enumerate(names)
        )
        return ChartSamples(losses=tuple(losses))
    ratios = tuple(0.5 + (place * 37 % 101) / 2000 for place in range(150))
    return ChartSamples(ratios=ratios) if check == "latency" else ChartSamples()


def history(model: str, variant: str, *sizes: int) -> VariantHistory:
    """The history of a variant: a run of another commit for each size."""
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    figures = [Figures(model, variant, size=size, coverage=1.0, accuracy=0.9, ratio=0.5) for size in sizes]
    runs = [
        Run(Path(f"{number}.json"), begin + timedelta(days=number), f"commit{number}", figures=(one,))
        for number, one in enumerate(figures)
    ]
    (found,) = histories(runs)
    return found


def charted(page: str) -> Any:
    """What the charts of a page draw."""
    (packed,) = re.findall(r'<script type="application/gzip" id="data">([^<]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(packed)))
