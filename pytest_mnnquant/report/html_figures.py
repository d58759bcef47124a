"""The figures of a variant as the HTML report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.report.rows import FIGURES, Row

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as text, and as the number it is sorted by."""

    text: str
    number: float | None = None
    note: str = ""


#: What was not measured.
EMPTY: Final = Cell("-")


def file_size(count: float) -> str:
    """Bytes as people read them."""
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count:,.0f} B"


def cells(variant: Json, row: Row) -> dict[str, Cell]:
    """The figures of the table of verdicts, by their titles: the texts of all reports, with what they are sorted by."""
    metrics = {check["check"]: check["metrics"] for check in variant["checks"]}
    numbers = (
        metrics.get("size", {}).get("size_ratio"),
        metrics.get("coverage", {}).get("coverage"),
        _change(metrics.get("accuracy", {})),
        metrics.get("latency", {}).get("latency_ratio"),
        metrics.get("memory", {}).get("memory_ratio"),
    )
    every = zip(FIGURES, row.figures, numbers, strict=True)
    return {title: Cell(text, number) for title, text, number in every}


def _change(metrics: Json) -> float | None:
    """What quantization changed in the accuracy, by its task or, without one, by its outputs."""
    if task := metrics.get("task"):
        return float(task["quantized"] - task["float"])
    cosines = [one["cosine"] for one in metrics.get("outputs", {}).values() if one["cosine"] is not None]
    return min(cosines) - 1 if cosines else None


def details(model: Json, variant: Json, row: Row) -> dict[str, Cell]:
    """The figures of one variant, by their titles, in the order in which they are shown."""
    metrics = {check["check"]: check["metrics"] for check in variant["checks"]}
    found: dict[str, Cell] = {}
    base, file = model.get("float"), variant.get("quantized")
    if file:
        ratio = f"{size_text(base['bytes'] / file['bytes'])} than float" if base and file["bytes"] else ""
        found["file"] = Cell(file_size(file["bytes"]), file["bytes"], ratio)
    if layers := variant.get("layers"):
        done = sum(layer["quantized"] for layer in layers)
        found["layers stored as asked"] = Cell(f"{done} of {len(layers)}", done / len(layers))
    if (share := variant.get("coverage")) is not None:
        found["coverage"] = Cell(f"{share:.1%}", share)
    if drift := variant.get("bn_drift"):
        found["BatchNorm drift"] = Cell(f"{drift:.2g} standard deviations", drift)
    found |= _accuracy_details(metrics.get("accuracy", {}))
    latency, memory = metrics.get("latency", {}), metrics.get("memory", {})
    if (ratio := latency.get("latency_ratio")) is not None:
        times = f"{latency['quantized_seconds'] * 1e3:.3g} ms, float {latency['float_seconds'] * 1e3:.3g} ms"
        span = f"95 % interval {latency['latency_ratio_low']:.2f} to {latency['latency_ratio_high']:.2f}"
        text = row.figures[FIGURES.index("latency")]
        found["latency"] = Cell(text, ratio, f"{span}, {latency['pairs']} pairs; {times}")
    if memory.get("session_bytes") and memory.get("float_session_bytes"):
        note = f"float {file_size(memory['float_session_bytes'])}"
        found["memory of a session"] = Cell(file_size(memory["session_bytes"]), memory["session_bytes"], note)
    provenance = variant.get("provenance") or {}
    if maker := provenance.get("maker"):
        calibration = provenance.get("calibration") or {}
        note = f"{calibration['samples']} samples of {calibration['origin']}" if calibration.get("samples") else ""
        found["made"] = Cell(maker, None, note)
    return found


def _accuracy_details(metrics: Json) -> dict[str, Cell]:
    found = {}
    if task := metrics.get("task"):
        low, high = task.get("drop_low"), task.get("drop_high")
        known = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
        word = "rise" if task.get("lower_is_better") else "drop"
        span = f"; {word} {task['drop']:.4f}, 95 % bounds {low:.4f} to {high:.4f}" if known else ""
        note = f"float {task['float']:.4f}{span}; {metrics['samples']} samples"
        found[task["label"]] = Cell(f"{task['quantized']:.4f}", task["quantized"], note)
    for name, one in metrics.get("outputs", {}).items():
        if one.get("cosine") is not None:
            sqnr = one.get("sqnr_db")
            note = f"SQNR {sqnr:.1f} dB" if sqnr is not None and math.isfinite(sqnr) else ""
            found[f"cosine to float, {name}"] = Cell(f"{one['cosine']:.4f}", one["cosine"], note)
    return found
