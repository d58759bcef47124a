"""Records of runs that never were: as many layers, and with such names, as a test wants."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from typing import Any

from pytest_mnnquant.evidence.chart_samples import BINS

CHECKS = ("conversion", "params", "coverage", "weights", "size", "calibration", "accuracy", "latency")


def finding(code: str, layer: str | None = None, severity: str = "error", **more: Any) -> dict[str, Any]:
    """A finding as a record holds it."""
    told = {"code": code, "rule": "a-rule", "severity": severity, "layer": layer, "message": f"{layer} is wrong"}
    return {**told, "cause": "because", "remedy": "mend it", "follows": None, "consequences": [], **more}


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
    found: list[dict[str, Any]] = []
    for mode in modes:
        variant = {
            "recipe": "int8",
            "mode": mode,
            "quantized": {"path": f"{source}.mnn", "bytes": size, "sha256": "0", "uuid": ""},
            "params": None,
            "coverage": 1.0,
            "layers": list(layers),
        }
        for check in CHECKS:
            told = list(findings) if check == "coverage" else []
            failed = any(one["severity"] == "error" for one in told)
            result = {
                "check": check,
                "outcome": "failed" if failed else "passed",
                "reason": None,
                "metrics": _METRICS.get(check, {}),
                "ignored": {},
                "findings": told,
            }
            base = {"path": f"{source}.float.mnn", "bytes": 4 * size, "sha256": "1", "uuid": ""}
            label = f"int8[{mode}]" if mode else "int8"
            about = {"model": model, "source": source, "file": None, "float": base, "variant": variant, "label": label}
            found.append({**about, "check": result, "portrait": _portrait(check, layers), "order": len(found)})
    return found


_METRICS: dict[str, dict[str, Any]] = {
    "coverage": {"coverage": 1.0},
    "size": {"size_ratio": 4.0, "float_bytes": 4, "quantized_bytes": 1},
    "latency": {"latency_ratio": 0.5, "latency_ratio_low": 0.48, "latency_ratio_high": 0.52, "pairs": 150,
                "float_seconds": 0.002, "quantized_seconds": 0.001},
}  # fmt: skip


def _portrait(check: str, layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = [one["name"] for one in layers]
    # No two bars are alike, so that packing gains no more than it does in life.
    bars = [[(place * 7919 + bar * 104729) % 4001 + 1 for bar in range(BINS)] for place in range(len(names))]
    if check == "weights":
        return {"weights": {name: {"low": -1.0, "high": 1.0, "float": own, "stored": own[::-1]}
                            for name, own in zip(names, bars, strict=True)}}  # fmt: skip
    if check == "calibration":
        tensors = {f"{name}:out": {"low": 0.0, "high": 6.5, "float": own, "codes": [0.0, 6.0]}
                   for name, own in zip(names, bars, strict=True)}  # fmt: skip
        before = [f"{name}:out" for name in (names[:1] + names)[: len(names)]]
        ends = {name: [entering, f"{name}:out"] for name, entering in zip(names, before, strict=True)}
        return {"tensors": tensors, "ends": ends}
    if check == "accuracy":
        own = [
            {"name": name, "module": None, "own_sqnr_db": 30.0 + place % 17, "reached_sqnr_db": 25.0 + place % 13,
             "clipped_in": 0.0, "clipped_out": 0.001}
            for place, name in enumerate(names)
        ]  # fmt: skip
        return {"metric": "top-1", "losses": own}
    return {"ratios": [0.5 + (place * 37 % 101) / 2000 for place in range(150)]} if check == "latency" else {}


def charted(page: str) -> Any:
    """What the charts of a page draw."""
    (packed,) = re.findall(r'<script type="application/gzip" id="data">([^<]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(packed)))
