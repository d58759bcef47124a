"""Records of runs that never were: as many layers, and with such names, as a test wants."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.evidence.chart_samples import BINS
from pytest_mnnquant.evidence.png import png
from pytest_mnnquant.findings.accuracy_metrics import LayerLossMetrics
from pytest_mnnquant.findings.check_metrics import Metrics
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import FAILED, PASSED, FindingId, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.findings.run_metrics import LatencyMetrics
from pytest_mnnquant.history.series import VariantHistory, histories
from pytest_mnnquant.history.storage import Run
from pytest_mnnquant.measurements.chart_samples import ChartSamples, TensorHistogram, WeightHistogram
from pytest_mnnquant.measurements.sample_views import Box, Panel, SampleView
from pytest_mnnquant.recipes.names import without_mode
from pytest_mnnquant.report.record import CheckRecord, reported
from pytest_mnnquant.report.variant_report import CheckReport, LayerReport, ModelFile, ReportedFinding, VariantReport
from tests.results import coverage, size

CHECKS = ("conversion", "params", "coverage", "weights", "size", "calibration", "accuracy", "latency")


def record(
    result: Result, label: str = "int8-eval", model: str = "digits", variant: VariantReport | None = None
) -> CheckRecord:
    """The record of an item that ran a check; `label` is that of the variant, without a target."""
    recipe = without_mode(label)
    mode = label[len(recipe) + 1 :]
    of_label = variant_report(recipe, mode or None) if variant is None else variant
    return CheckRecord(
        model=model,
        source=f"{model}.py:build",
        file=f"/home/{model}.py",
        base=file(f"{model}.float.mnn", 40),
        variant=of_label,
        check=reported(result, of_label.label),
    )


def file(path: str, size: int) -> ModelFile:
    """A model's file."""
    return ModelFile(path, size, "0" * 64, "")


def variant_report(recipe: str = "int8", mode: str | None = "eval", **more: Any) -> VariantReport:
    """A variant without its checks."""
    return VariantReport(recipe, mode, **{"quantized": file("net.mnn", 10), "coverage": 1.0, **more})


def finding(code: str, layer: str = "", severity: str = "error", **more: Any) -> ReportedFinding:
    """A finding of the coverage check."""
    usual = {"message": f"{layer} is wrong", "cause": "because", "fix": "change it"}
    return ReportedFinding(FindingId(code, "coverage", layer), Severity(severity), **{**usual, **more})


def layer(name: str, place: int = 1, *, quantized: bool = True, skipped: bool = False) -> LayerReport:
    """A layer; the later ones are smaller."""
    weights = 4_000_000 // (place + 3)
    return LayerReport(
        name=name,
        op="Convolution",
        weights=weights,
        storage="int8" if quantized else "float32",
        bits=8 if quantized else 32,
        bytes=weights if quantized else 4 * weights,
        float_bytes=4 * weights,
        scale_in=0.1,
        scale_out=0.2,
        quantized=quantized,
        skipped=skipped,
        module=f"blocks.{place}",
    )


def records(
    layers: Sequence[LayerReport],
    findings: Sequence[ReportedFinding] = (),
    *,
    model: str = "net",
    source: str = "net.py:build",
    modes: Sequence[str | None] = ("train", "eval"),
) -> list[CheckRecord]:
    """A run of one recipe in these modes; `findings` are those of the coverage check."""
    size = sum(one.bytes for one in layers) + 5000
    base, quantized = file(f"{source}.float.mnn", 4 * size), file(f"{source}.mnn", size)
    made: list[CheckRecord] = []
    for mode in modes:
        variant = variant_report("int8", mode, quantized=quantized, layers=tuple(layers))
        for name in CHECKS:
            of_check = tuple(findings) if name == "coverage" else ()
            failed = any(one.severity is Severity.ERROR for one in of_check)
            signed = tuple(dataclasses.replace(one, variant=variant.label) for one in of_check)
            check = CheckReport(name, FAILED if failed else PASSED, signed, _METRICS.get(name))
            made.append(CheckRecord(model, source, None, base, variant, check, _charts(name, layers), len(made)))
    return made


_METRICS: dict[str, Metrics] = {
    "coverage": coverage(1.0),
    "size": size(4.0),
    "latency": LatencyMetrics(0.5, 0.48, 0.52, pairs=150, float_seconds=0.002, quantized_seconds=0.001),
}


PIXELS: Final = png(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3)
#: A sample with a picture, objects over it, and curves; its output has a hostile name.
VIEWS: Final = (
    SampleView(
        17,
        "</script><script>document.title='taken'</script>",
        "error 12 % of the signal",
        (
            Panel("input", PIXELS, 8, 8),
            Panel("float", PIXELS, 8, 8, boxes=(Box(0.1, 0.2, 0.5, 0.25, 2, 0.9),), note="1 objects"),
            Panel("float and quantized", curves=((0.0, 1.0, 0.5), (0.0, 0.75, 0.5)), high=1.0, note="3 values"),
        ),
    ),
)


def _charts(check: str, layers: Sequence[LayerReport]) -> ChartSamples:
    names = [one.name for one in layers]
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
        return ChartSamples(losses=tuple(losses), views=VIEWS)
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
