"""What a check reports: findings, and its result."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pytest_mnnquant.findings.catalogue import NOT_IGNORABLE, RULES
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.check_metrics import Metrics
from pytest_mnnquant.findings.rule import Rule, Severity

PASSED, FAILED, SKIPPED, INCONCLUSIVE = "passed", "failed", "skipped", "inconclusive"


@dataclass(frozen=True, slots=True)
class FindingId:
    """What identifies a finding of a variant. Findings are joined by this, never by their text."""

    code: str
    check: str
    layer: str = ""

    @property
    def title(self) -> str:
        """The rule, and the layer that broke it."""
        return RULES[self.code].title + (f" in {self.layer}" if self.layer else "")

    def __str__(self) -> str:
        """The title, and the check that reported it."""
        return f"{self.title} ({self.check})"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a variant: what was measured and what was required (`message`), where, why, and how to fix it.

    `cause` is None if the evidence does not show one. `check` is the check that reported it; a `Result` sets it.
    `follows` is the error that this one is a consequence of, and `consequences` are the consequences of this one.
    """

    code: str
    message: str
    layer: str = ""
    cause: Cause | None = None
    fix: str = ""
    as_warning: bool = False
    check: str = ""
    follows: FindingId | None = None
    consequences: tuple[Finding, ...] = ()

    @property
    def id(self) -> FindingId:
        """What identifies it among the findings of its variant."""
        return FindingId(self.code, self.check, self.layer)

    @property
    def cause_id(self) -> str:
        """The id of its mechanism; empty if it is unknown."""
        return self.cause.id if self.cause else ""

    @property
    def cause_text(self) -> str:
        """The cause as people read it."""
        return self.cause.text if self.cause else ""

    @property
    def rule(self) -> Rule:
        """The rule that was broken."""
        return RULES[self.code]

    @property
    def severity(self) -> Severity:
        """The rule's severity; `as_warning` makes it a warning, `follows` makes an error a consequence."""
        if self.as_warning:
            return Severity.WARNING
        return Severity.CONSEQUENCE if self.follows else self.rule.severity


@dataclass(frozen=True)
class Result:
    """The outcome of one check on one variant. `reason` explains a skipped or inconclusive one.

    `metrics` is what it measured, None if it measured nothing. `ignored` counts the findings that --mnn-ignore
    suppressed, by code. `not_applicable`: it was skipped because this recipe has nothing that it could judge.
    """

    check: str
    outcome: str
    findings: tuple[Finding, ...] = ()
    metrics: Metrics | None = None
    reason: str = ""
    ignored: Mapping[str, int] = field(default_factory=dict)
    not_applicable: bool = False

    @classmethod
    def from_findings(cls, check: str, findings: Iterable[Finding] = (), metrics: Metrics | None = None) -> Result:
        """The result: failed by errors and their consequences, inconclusive by gaps, otherwise passed."""
        all_ = tuple(findings)
        severities = {finding.severity for finding in all_}
        if severities & {Severity.ERROR, Severity.CONSEQUENCE}:
            return cls(check, FAILED, all_, metrics)
        if Severity.GAP in severities:
            gap = next(finding for finding in all_ if finding.severity is Severity.GAP)
            return cls(check, INCONCLUSIVE, all_, metrics, gap.message)
        return cls(check, PASSED, all_, metrics)

    @classmethod
    def skipped(cls, check: str, reason: str, not_applicable: bool = False) -> Result:
        """A check that has nothing to judge: the user gave nothing for it, or nothing can be given."""
        return cls(check, SKIPPED, reason=reason, not_applicable=not_applicable)

    def __post_init__(self) -> None:
        """Write the check into its findings."""
        signed = tuple(dataclasses.replace(finding, check=self.check) for finding in self.findings)
        object.__setattr__(self, "findings", signed)

    def __bool__(self) -> bool:
        """Whether the check passed."""
        return self.outcome == PASSED

    @property
    def is_unresolved(self) -> bool:
        """Whether something was not judged although it could be: with `--mnn-strict` this fails."""
        return self.outcome in (SKIPPED, INCONCLUSIVE) and not self.not_applicable


def is_ignored(code: str, ignored: Iterable[str]) -> bool:
    """Whether a code is one of these, or begins with one of them; rules in `NOT_IGNORABLE` never are."""
    return code not in NOT_IGNORABLE and code.startswith(tuple(ignored))


def without_ignored(result: Result, ignored: tuple[str, ...]) -> Result:
    """The result without findings of these codes; it counts how many of each were left out."""
    counted = tuple(finding for finding in result.findings if not is_ignored(finding.code, ignored))
    if len(counted) == len(result.findings) or result.outcome == SKIPPED:
        return result
    counts = Counter(finding.code for finding in result.findings if is_ignored(finding.code, ignored))
    counts.update(result.ignored)
    return dataclasses.replace(Result.from_findings(result.check, counted, result.metrics), ignored=dict(counts))
