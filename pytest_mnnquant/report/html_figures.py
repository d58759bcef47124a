"""The figures of a variant as the HTML report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

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


def _size(metrics: Json) -> Cell:
    ratio = metrics.get("size_ratio")
    if not ratio:
        return EMPTY
    return Cell(f"{ratio:.2f}x smaller" if ratio >= 1 else f"{1 / ratio:.2f}x LARGER", ratio)


def _coverage(metrics: Json) -> Cell:
    share = metrics.get("coverage")
    return EMPTY if share is None else Cell(f"{share:.1%}", share)


def _accuracy(metrics: Json) -> Cell:
    if task := metrics.get("task"):
        change = task["quantized"] - task["float"]
        return Cell(f"{task['label']} {change:+.4f}" if change else f"{task['label']} ±0", change)
    cosines = [one["cosine"] for one in metrics.get("outputs", {}).values() if one["cosine"] is not None]
    return Cell(f"cosine {min(cosines):.4f}", min(cosines) - 1) if cosines else EMPTY


def _times(key: str) -> Any:
    def cell(metrics: Json) -> Cell:
        ratio = metrics.get(key)
        return EMPTY if ratio is None else Cell(f"{ratio:.2f}x float", ratio)

    return cell


#: The figures of the table of verdicts, by their titles.
CELLS: Final = {
    "size": _size,
    "coverage": _coverage,
    "accuracy": _accuracy,
    "latency": _times("latency_ratio"),
    "memory": _times("memory_ratio"),
}


def details(model: Json, variant: Json) -> dict[str, Cell]:
    """The figures of one variant, by their titles, in the order in which they are shown."""
    metrics = {check["check"]: check["metrics"] for check in variant["checks"]}
    found: dict[str, Cell] = {}
    base, file = model.get("float"), variant.get("quantized")
    if file:
        ratio = f"{base['bytes'] / file['bytes']:.2f}x smaller than float" if base and file["bytes"] else ""
        found["file"] = Cell(file_size(file["bytes"]), file["bytes"], ratio)
    if layers := variant.get("layers"):
        done = sum(layer["quantized"] for layer in layers)
        found["layers stored as asked"] = Cell(f"{done} of {len(layers)}", done / len(layers))
        found["coverage"] = _coverage(variant)
    if drift := variant.get("bn_drift"):
        found["BatchNorm drift"] = Cell(f"{drift:.2g} standard deviations", drift)
    found |= _accuracy_details(metrics.get("accuracy", {}))
    latency, memory = metrics.get("latency", {}), metrics.get("memory", {})
    if (ratio := latency.get("latency_ratio")) is not None:
        times = f"{latency['quantized_seconds'] * 1e3:.3g} ms, float {latency['float_seconds'] * 1e3:.3g} ms"
        span = f"95 % interval {latency['latency_ratio_low']:.2f} to {latency['latency_ratio_high']:.2f}"
        found["latency"] = Cell(f"{ratio:.2f}x float", ratio, f"{span}, {latency['pairs']} pairs; {times}")
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
