"""Places side by side: what the float model and a variant reach on this machine, and the variant on each target."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pytest_mnnquant.report.width import cut, pad, shown, width

Json = Mapping[str, Any]
FLOAT, HOST = "float", "host"
TITLE: Final = "places side by side"
#: What this machine computes where its own kernels are known to be wrong, beside what was judged.
AS_RUN: Final = "host as it runs"


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """One variant in one place; `steps` is how far its outputs are from this machine's, at most.

    `latency` and `memory` are times the float model's in the same place, where that was measured.
    """

    variant: str
    place: str
    metric: str
    value: float | None
    cosine: float | None
    steps: float | None = None
    latency: float | None = None
    memory: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The form it has in the report."""
        return dataclasses.asdict(self)


def places_of(model: Json) -> list[PlaceRow]:
    """The rows of a model of the report; none where nothing ran on a target."""
    accuracies = [(variant, found) for variant in model["variants"] if (found := _accuracy(variant))]
    rows: list[PlaceRow] = []
    for label in dict.fromkeys(_label(variant) for variant, _ in accuracies if variant.get("target")):
        ours = [(variant, found) for variant, found in accuracies if _label(variant) == label]
        rows += _rows(label, ours)
    return rows


def _rows(label: str, found: Sequence[tuple[Json, Json]]) -> Iterator[PlaceRow]:
    task = next((metrics["task"] for _, metrics in found if metrics.get("task")), None)
    metric = task["label"] if task else ""
    yield PlaceRow(label, FLOAT, metric, task["float"] if task else None, None)
    for variant, metrics in found:
        value = metrics["task"]["quantized"] if metrics.get("task") else None
        if as_run := metrics.get("as_run"):
            yield PlaceRow(label, AS_RUN, metric, as_run["task"], as_run["cosine"])
        steps = (metrics.get("difference") or {}).get("steps")
        ratios = (_measured(variant, check, f"{check}_ratio") for check in ("latency", "memory"))
        yield PlaceRow(label, variant.get("target") or HOST, metric, value, _cosine(metrics), steps, *ratios)


def place_table(rows: Sequence[PlaceRow]) -> list[tuple[str, ...]]:
    """The rows as cells, a heading first; a column that is empty in all is left out."""
    metric = next((row.metric for row in rows if row.metric), "")
    table, last = [("", "place", metric, "cosine", "from host", "latency", "memory")], ""
    for row in rows:
        name, last = "" if row.variant == last else row.variant, row.variant
        steps, times = "" if row.steps is None else f"{row.steps:.3g} steps", (_times(row.latency), _times(row.memory))
        table.append((name, row.place, _number(row.value), _number(row.cosine), steps, *times))
    told = [place for place in range(len(table[0])) if any(line[place] for line in table[1:])]
    return [tuple(line[place] for place in told) for line in table]


def place_lines(rows: Sequence[PlaceRow], columns: int = 80) -> list[str]:
    """The rows as lines of a terminal."""
    if not rows:
        return []
    cells = [tuple(map(shown, line)) for line in place_table(rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(pad(cell, wide) for cell, wide in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [f"  {TITLE}:", *(cut(f"    {line}", columns) for line in lines)]


def _label(variant: Json) -> str:
    return f"{variant['recipe']}[{variant['mode']}]" if variant["mode"] else str(variant["recipe"])


def _accuracy(variant: Json) -> Json | None:
    """What the accuracy check measured, where it compared outputs."""
    found = next((check["metrics"] for check in variant["checks"] if check["check"] == "accuracy"), None)
    return found or None


def _measured(variant: Json, check: str, figure: str) -> float | None:
    found = (one["metrics"].get(figure) for one in variant["checks"] if one["check"] == check)
    return next(found, None)


def _cosine(metrics: Json) -> float | None:
    found = (one["cosine"] for one in (metrics.get("outputs") or {}).values())
    return min((one for one in found if one is not None), default=None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"
