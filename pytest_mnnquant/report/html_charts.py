"""The numbers that the charts of the HTML report draw, as plain data. How they are drawn is the page's own script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_mnnquant.report.html_view import ModelView, VariantView

Json = Mapping[str, Any]
#: Figures of the history, and how their axes are called.
HISTORY: Final = {
    "size": "file size, bytes",
    "coverage": "coverage",
    "accuracy": "accuracy",
    "ratio": "latency / float",
    "memory": "memory, bytes",
}


def chart_data(
    models: Sequence[ModelView],
    report: Json,
    portraits: Mapping[tuple[str, str], Json],
    past: Sequence[Json],
) -> list[dict[str, Any]]:
    """One entry a model, in the order of the page."""
    return [
        _model(view, model, portraits, [one for one in past if one["model"] == view.name])
        for view, model in zip(models, report["models"], strict=True)
    ]


def _model(
    view: ModelView, model: Json, portraits: Mapping[tuple[str, str], Json], past: Sequence[Json]
) -> dict[str, Any]:
    variants = [
        _variant(one, raw, portraits.get((view.name, one.label), {}))
        for one, raw in zip(view.variants, model["variants"], strict=True)
    ]
    return {
        "name": view.name,
        "bytes": view.base["bytes"] if view.base else None,
        "variants": variants,
        "modes": [{"recipe": one["recipe"], "changes": dict(one["scale_change"])} for one in view.modes],
        "history": [_history(one) for one in past],
    }


def _variant(view: VariantView, raw: Json, portrait: Json) -> dict[str, Any]:
    losses = portrait.get("accuracy", {}).get("losses", ())
    latency = view.checks.get("latency", {}).get("metrics", {})
    activations = portrait.get("calibration", {})
    return {
        "label": view.label,
        "bytes": raw["quantized"]["bytes"] if raw["quantized"] else None,
        "layers": [
            [one.name, one.title, one.storage, one.state, one.bytes, one.float_bytes, one.sqnr] for one in view.layers
        ],
        "losses": [
            [one["name"], one["module"] or one["name"], one["own_sqnr_db"], one["reached_sqnr_db"]] for one in losses
        ],
        "suspect": next((one.name for one in view.layers if one.suspect), None),
        "weights": portrait.get("weights", {}).get("weights", {}),
        "tensors": activations.get("tensors", {}),
        "ends": activations.get("ends", {}),
        "ratios": portrait.get("latency", {}).get("ratios", []),
        "ratio": [latency.get(f"latency_ratio{end}") for end in ("", "_low", "_high")],
    }


def _history(one: Json) -> dict[str, Any]:
    runs = one["runs"]
    return {
        "variant": one["variant"],
        "times": [run["time"] for run in runs],
        "commits": [(run["commit"] or "")[:8] + "+" * bool(run["dirty"]) for run in runs],
        "figures": {
            name: [run[name] for run in runs] for name in HISTORY if any(run[name] is not None for run in runs)
        },
        "steps": [[step["figure"], step["commit"]["time"], step["commit"]["name"][:8]] for step in one["steps"]],
    }
