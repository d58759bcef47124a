"""The short form of a model in all reports: a row per variant, and a verdict with its root error."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, SKIPPED
from pytest_mnnquant.findings.metric import METRICS, Shown
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.report.model import ModelReport
from pytest_mnnquant.report.variant_report import CheckReport, VariantReport

#: The columns between a variant's name and its verdict.
COLUMNS: Final = tuple(metric.title for metric in METRICS)
_COUNTED: Final = (PASSED, FAILED, INCONCLUSIVE, SKIPPED)


class Outcome(enum.Enum):
    """The outcome of a variant or a model, as reports write it."""

    OK = "ok"
    SKIPPED = "not judged"
    INCONCLUSIVE = "inconclusive"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Row:
    """One variant: its metrics in the order of `COLUMNS`, its outcome, and the checks that decided it."""

    label: str
    metrics: tuple[Shown, ...]
    outcome: Outcome
    checks: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The metrics as text; "-" if nothing was measured."""
        return tuple(shown.text for shown in self.metrics)

    @property
    def verdict(self) -> str:
        """Outcome and checks in one cell."""
        return f"{self.outcome.value}: {self.checks}" if self.checks else self.outcome.value


@dataclass(frozen=True, slots=True)
class ModelVerdict:
    """The outcome of a model, its root error with the layer, and the number of its checks per outcome."""

    outcome: Outcome
    why: str
    checks: str
    layer: str = ""


def rows_of(model: ModelReport, strict: bool = False) -> list[Row]:
    """A row per variant. With `strict`, inconclusive checks count as failed."""
    return [_row(variant, strict) for variant in model.variants]


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst outcome."""
    seen = {*outcomes}
    order = (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.OK, Outcome.SKIPPED)
    return next((outcome for outcome in order if outcome in seen), Outcome.OK)


def verdict_of(model: ModelReport, strict: bool = False) -> ModelVerdict:
    """The verdict of a model."""
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
    measured = [check.metrics for check in variant.checks if check.metrics]
    return Row(variant.label, tuple(metric.cell(measured) for metric in METRICS), *outcome_of(variant.checks, strict))


def outcome_of(checks: Sequence[CheckReport], strict: bool = False) -> tuple[Outcome, str]:
    """The common outcome of these checks, and the names of those that decided it."""
    if failed := _failed(checks, strict):
        return Outcome.FAILED, failed
    inconclusive = ", ".join(check.check for check in checks if check.outcome == INCONCLUSIVE)
    if inconclusive:
        return Outcome.INCONCLUSIVE, inconclusive
    is_skipped = bool(checks) and all(check.outcome == SKIPPED for check in checks)
    return (Outcome.SKIPPED if is_skipped else Outcome.OK), ""


def _failed(checks: Sequence[CheckReport], strict: bool) -> str:
    """The failed checks: those with root errors first, then those with consequences only."""
    failed = [check for check in checks if check.outcome == FAILED or (strict and check.is_unresolved)]
    roots = ", ".join(check.check for check in failed if not check.is_consequence)
    effects = ", ".join(check.check for check in failed if check.is_consequence)
    return f"{roots} (causes {effects})" if roots and effects else roots or effects
