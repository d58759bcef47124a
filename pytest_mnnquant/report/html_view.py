"""What the HTML report shows in words: verdicts, variants side by side, findings. Plain values to plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_mnnquant.findings.figures import label_of
from pytest_mnnquant.report.html_figures import EMPTY, Cell, cells, details
from pytest_mnnquant.report.html_layers import LayerView, layer_views
from pytest_mnnquant.report.places import place_table, places_of
from pytest_mnnquant.report.rows import FAILED, OK, OPEN, Row, rows_of

#: The word and the sign of each outcome: no verdict is told by its colour alone.
SIGNS: Final = {"passed": "✓", "failed": "✗", "skipped": "-", "inconclusive": "?"}
#: The outcomes of variants in the words of the outcomes of checks.
OUTCOMES: Final = {FAILED: "failed", OPEN: "inconclusive", OK: "passed"}
_SEVERITIES: Final = ("error", "gap", "warning", "consequence")
Json = Mapping[str, Any]


@dataclass(frozen=True)
class FindingView:
    """One finding of one model, with what follows from it. `variants` that have it tell their own figures in `said`."""

    model: str
    check: str
    told: Json
    also: tuple[Json, ...]
    said: Mapping[str, str]

    @property
    def variants(self) -> str:
        """The variants that it was found in."""
        return ", ".join(self.said)

    @property
    def messages(self) -> list[tuple[str, list[str]]]:
        """What was measured, with the variants that say the same."""
        texts = dict.fromkeys(self.said.values())
        return [(text, [label for label, own in self.said.items() if own == text]) for text in texts]

    @property
    def codes(self) -> tuple[str, ...]:
        """The rules it speaks of."""
        return tuple(dict.fromkeys([self.told["code"], *(one["code"] for one in self.also)]))


@dataclass(frozen=True)
class VariantView:
    """One variant: a row of the verdicts, a column of its model's table. `id` is unique in the page."""

    id: str
    label: str
    outcome: str
    verdict: str
    headline: str
    cells: Mapping[str, Cell]
    checks: Mapping[str, Json]
    layers: tuple[LayerView, ...]
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelView:
    """One model: its variants side by side (`rows` of cells, `checks` of outcomes), and train against eval."""

    id: str
    name: str
    source: str
    base: Json | None
    variants: tuple[VariantView, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    checks: tuple[str, ...]
    modes: tuple[Json, ...]
    places: tuple[tuple[str, ...], ...]


def model_views(report: Json, portraits: Mapping[tuple[str, str], Json]) -> tuple[ModelView, ...]:
    """All models of a report. `portraits` are by model and variant."""
    return tuple(
        _model(f"m{place}", model, rows_of(model, report["strict"]), portraits)
        for place, model in enumerate(report["models"])
    )


def _model(place: str, model: Json, told: Sequence[Row], portraits: Mapping[tuple[str, str], Json]) -> ModelView:
    variants = tuple(
        _variant(f"{place}v{number}", variant, row, portraits.get((model["name"], row.label), {}))
        for number, (variant, row) in enumerate(zip(model["variants"], told, strict=True))
    )
    figures = [details(model, variant, row) for variant, row in zip(model["variants"], told, strict=True)]
    titles = list(dict.fromkeys(title for one in figures for title in one))
    rows = tuple((title, tuple(one.get(title, EMPTY) for one in figures)) for title in titles)
    checks = tuple(dict.fromkeys(name for one in variants for name in one.checks))
    source = model.get("source") or ""
    modes = tuple(model.get("modes", ()))
    beside = places_of(model)
    places = tuple(place_table(beside)) if beside else ()
    return ModelView(place, model["name"], source, model.get("float"), variants, rows, checks, modes, places)


def _variant(place: str, variant: Json, row: Row, portrait: Json) -> VariantView:
    checks = {check["check"]: check for check in variant["checks"]}
    outcome, verdict = told_outcome(row.outcome, row.checks)
    if outcome == "passed" and all(check["outcome"] == "skipped" for check in checks.values()):
        outcome, verdict = "skipped", "skipped: nothing was judged"
    findings = sorted_findings([one for check in checks.values() for one in check["findings"]])
    first = next((one for one in findings if one["severity"] != "warning"), None)
    headline = _headline(first) if outcome == "failed" and first else ""
    missing = {check: part["unavailable"] for check, part in portrait.items() if part.get("unavailable")}
    layers = layer_views(variant, portrait, checks.get("accuracy", {}).get("metrics", {}).get("suspect"))
    return VariantView(place, row.label, outcome, verdict, headline, cells(variant, row), checks, layers, missing)


def told_outcome(outcome: str, blame: str) -> tuple[str, str]:
    """An outcome in the page's words, alone and with the checks that are to blame."""
    word = OUTCOMES[outcome]
    return word, f"{word}: {blame}" if blame else word


def _headline(told: Json) -> str:
    return f"{told['code']} {told['rule']}" + (f" in {told['layer']}" if told["layer"] else "")


def sorted_findings(findings: Sequence[Json]) -> list[Json]:
    """Findings, those that fail a check by themselves first."""
    return sorted(findings, key=lambda one: _SEVERITIES.index(one["severity"]))


def finding_views(report: Json) -> list[FindingView]:
    """All findings, errors first. What follows from another one is told there, what several variants have once."""
    groups: dict[tuple[Any, ...], FindingView] = {}
    for model, label, checks in _places(report):
        for name, told in _findings(checks):
            also = tuple(told["consequences"])
            same = tuple(_key(one["check"], one) for one in also)
            group = (model, *_key(name, told), told["severity"], told["cause"], told["remedy"], same)
            known = groups.get(group)
            said = {**(known.said if known else {}), label: told["message"]}
            groups[group] = FindingView(model, name, told, also, said)
    return sorted(groups.values(), key=lambda one: _SEVERITIES.index(one.told["severity"]))


def _places(report: Json) -> Iterator[tuple[str, str, Sequence[Json]]]:
    """Where there may be findings, with the checks that looked there: the variants, then the baseline file."""
    for model in report["models"]:
        yield from ((model["name"], label_of(variant), variant["checks"]) for variant in model["variants"])
    if baseline := report["baseline"]:
        yield baseline["path"], "baseline", [baseline["check"]]


def _findings(checks: Sequence[Json]) -> Iterator[tuple[str, Json]]:
    every = [(check["check"], one) for check in checks for one in check["findings"]]
    below = {_key(one["check"], one) for _, told in every for one in told["consequences"]}
    yield from (
        (name, told) for name, told in every if not (told["severity"] == "consequence" and _key(name, told) in below)
    )


def _key(check: str, told: Json) -> tuple[str, str, str | None]:
    return check, told["code"], told["layer"]
