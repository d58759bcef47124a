"""What all reports say of a model in short: a row per variant, and a verdict with the error at the root of it."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.check_metrics import (
    AccuracyMetrics,
    CoverageMetrics,
    LatencyMetrics,
    MemoryMetrics,
    SizeMetrics,
)
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, SKIPPED
from pytest_mnnquant.findings.rules import Severity
from pytest_mnnquant.report.model import ModelReport
from pytest_mnnquant.report.variant_report import CheckReport, VariantReport

#: The columns between a variant's name and its verdict.
FIGURES: Final = ("size", "coverage", "accuracy", "latency", "memory")
_COUNTED: Final = (PASSED, FAILED, INCONCLUSIVE, SKIPPED)


class Outcome(enum.Enum):
    """How a variant or a model ended: the word that reports write."""

    OK = "ok"
    INCONCLUSIVE = "inconclusive"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Row:
    """One variant: its figures ("-" if nothing was measured), its outcome, and the checks that decided it."""

    label: str
    figures: tuple[str, ...]
    outcome: Outcome
    checks: str = ""

    @property
    def verdict(self) -> str:
        """Outcome and checks in one cell."""
        return f"{self.outcome.value}: {self.checks}" if self.checks else self.outcome.value


@dataclass(frozen=True, slots=True)
class ModelVerdict:
    """How a model ended, the error at the root of that (in which layer), and how many of its checks ended how."""

    outcome: Outcome
    why: str
    checks: str
    layer: str = ""


def rows_of(model: ModelReport, strict: bool = False) -> list[Row]:
    """A row for each variant. With `strict`, what could not be judged failed."""
    return [_row(variant, strict) for variant in model.variants]


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of these outcomes."""
    seen = {*outcomes}
    return next((outcome for outcome in (Outcome.FAILED, Outcome.INCONCLUSIVE) if outcome in seen), Outcome.OK)


def verdict_of(model: ModelReport, strict: bool = False) -> ModelVerdict:
    """What is to be said of a model in a line."""
    rows = rows_of(model, strict)
    counts = Counter(check.outcome for variant in model.variants for check in variant.checks)
    counted = ", ".join(f"{counts[name]} {name}" for name in _COUNTED if counts[name])
    outcome = worst(row.outcome for row in rows)
    errors = [*model.findings(Severity.ERROR)] if outcome is Outcome.FAILED else []
    roots = [f"{error.title} ({error.variant})" for error in errors]
    undecided = [f"{row.checks} ({row.label})" for row in rows if row.outcome is outcome and row.checks]
    first, *others = roots or undecided or [""]
    why = f"{first} and {len(others)} more" if others else first
    return ModelVerdict(outcome, why, counted, errors[0].layer if errors else "")


def _row(variant: VariantReport, strict: bool) -> Row:
    size, coverage = variant.metrics(SizeMetrics), variant.metrics(CoverageMetrics)
    latency, memory = variant.metrics(LatencyMetrics), variant.metrics(MemoryMetrics)
    figures = (
        size_text(size.size_ratio if size else None),
        f"{coverage.coverage:.1%}" if coverage else "-",
        _accuracy(variant.metrics(AccuracyMetrics)),
        _ratio(latency.latency_ratio if latency else None),
        _ratio(memory.memory_ratio if memory else None),
    )
    return Row(variant.label, figures, *outcome_of(variant.checks, strict))


def outcome_of(checks: Sequence[CheckReport], strict: bool = False) -> tuple[Outcome, str]:
    """The outcome of these checks together, and the names of those that decided it."""
    if failed := _failed(checks, strict):
        return Outcome.FAILED, failed
    inconclusive = ", ".join(check.check for check in checks if check.outcome == INCONCLUSIVE)
    return (Outcome.INCONCLUSIVE if inconclusive else Outcome.OK), inconclusive


def _failed(checks: Sequence[CheckReport], strict: bool) -> str:
    """The checks that failed: those at the root of it, then those that follow from these."""
    failed = [check for check in checks if check.outcome == FAILED or (strict and check.is_unresolved)]
    roots = ", ".join(check.check for check in failed if not check.is_consequence)
    effects = ", ".join(check.check for check in failed if check.is_consequence)
    return ", hence ".join(filter(None, (roots, effects)))


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x float"


def _accuracy(accuracy: AccuracyMetrics | None) -> str:
    if accuracy is None:
        return "-"
    if (task := accuracy.task) is not None:
        change = task.quantized - task.reference
        return f"{task.label} {change:+.4f}" if change else f"{task.label} +-0"
    return "-" if accuracy.cosine is None else f"cosine {accuracy.cosine:.4f}"
