"""What all reports say of a model in short: a row a variant, and a verdict with what is at the root of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pytest_mnnquant.findings.figures import label_of, size_text

Json = Mapping[str, Any]
#: The columns between a variant's name and its verdict.
FIGURES: Final = ("size", "coverage", "accuracy", "latency", "memory")
OK, OPEN, FAILED = "ok", "inconclusive", "FAILED"


@dataclass(frozen=True, slots=True)
class Row:
    """One variant: its figures ("-" where nothing was measured), its outcome, and the checks that are to blame."""

    label: str
    figures: tuple[str, ...]
    outcome: str
    checks: str = ""

    @property
    def verdict(self) -> str:
        """Outcome and checks in one cell."""
        return f"{self.outcome}: {self.checks}" if self.checks else self.outcome


@dataclass(frozen=True, slots=True)
class Told:
    """A finding of a report, and where it was told."""

    label: str
    check: str
    finding: Json

    @property
    def title(self) -> str:
        """The rule, and the layer that broke it."""
        layer = self.finding["layer"]
        return f"{self.finding['code']} {self.finding['rule']}" + (f" in {layer}" if layer else "")


def rows_of(model: Json, strict: bool = False) -> list[Row]:
    """A row for each variant of a model of the report. `strict`: what could not be judged failed."""
    return [_row(variant, strict) for variant in model["variants"]]


def told(model: Json, *severities: str) -> Iterator[Told]:
    """The findings of these severities."""
    for variant in model["variants"]:
        for check in variant["checks"]:
            for finding in check["findings"]:
                if finding["severity"] in severities:
                    yield Told(label_of(variant), check["check"], finding)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a model ended, what is at the root of that (in which layer), and how many of its checks ended how."""

    outcome: str
    why: str
    checks: str
    layer: str = ""


def worst(outcomes: Iterable[str]) -> str:
    """The worst of some outcomes."""
    found = {*outcomes}
    return next((outcome for outcome in (FAILED, OPEN) if outcome in found), OK)


def verdict_of(model: Json, strict: bool = False) -> Verdict:
    """What is to be said of a model in a line."""
    rows = rows_of(model, strict)
    counts: dict[str, int] = {}
    for check in (check for variant in model["variants"] for check in variant["checks"]):
        counts[check["outcome"]] = counts.get(check["outcome"], 0) + 1
    every = ", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "inconclusive", "skipped")
                      if name in counts)  # fmt: skip
    outcome = worst(row.outcome for row in rows)
    errors = [*told(model, "error")] if outcome == FAILED else []
    roots = [f"{one.title} ({one.label})" for one in errors]
    blamed = [f"{row.checks} ({row.label})" for row in rows if row.outcome == outcome and row.checks]
    first, *others = roots or blamed or [""]
    layer = errors[0].finding["layer"] or "" if errors else ""
    return Verdict(outcome, f"{first} and {len(others)} more" if others else first, every, layer)


def _row(variant: Json, strict: bool) -> Row:
    checks = {check["check"]: check for check in variant["checks"]}

    def metric(check: str, key: str) -> Any:
        return checks.get(check, {}).get("metrics", {}).get(key)

    share, ratio = metric("coverage", "coverage"), metric("latency", "latency_ratio")
    memory = metric("memory", "memory_ratio")
    figures = (
        size_text(metric("size", "size_ratio")),
        "-" if share is None else f"{share:.1%}",
        _accuracy(metric("accuracy", "task"), metric("accuracy", "outputs")),
        "-" if ratio is None else f"{ratio:.2f}x float",
        "-" if memory is None else f"{memory:.2f}x float",
    )
    return Row(label_of(variant), figures, *outcome_of(variant["checks"], strict))


def outcome_of(checks: Sequence[Json], strict: bool = False) -> tuple[str, str]:
    """What some checks come to, and those of them that are to blame."""
    if failed := _failed(checks, strict):
        return FAILED, failed
    unsure = ", ".join(check["check"] for check in checks if check["outcome"] == "inconclusive")
    return (OPEN if unsure else OK), unsure


def _failed(checks: Sequence[Json], strict: bool) -> str:
    """The checks that failed: those at the root of it, then those that follow from these."""
    roots: list[str] = []
    effects: list[str] = []
    for check in checks:
        name = check["check"]
        if strict and check["outcome"] in ("skipped", "inconclusive") and not check["metrics"].get("needless"):
            roots.append(name)
        if check["outcome"] == "failed":
            severities = {finding["severity"] for finding in check["findings"]}
            (effects if "consequence" in severities and "error" not in severities else roots).append(name)
    parts = [", ".join(roots)] if roots else []
    return ", hence ".join([*parts, ", ".join(effects)] if effects else parts)


def _accuracy(task: Json | None, outputs: Mapping[str, Json] | None) -> str:
    if task is not None:
        change = task["quantized"] - task["float"]
        return f"{task['label']} {change:+.4f}" if change else f"{task['label']} +-0"
    cosines = [figures["cosine"] for figures in (outputs or {}).values() if figures["cosine"] is not None]
    return f"cosine {min(cosines):.4f}" if cosines else "-"
