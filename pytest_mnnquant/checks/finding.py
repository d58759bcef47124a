"""What a check has to say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pytest_mnnquant.checks.rules import RULES, Rule, Severity

PASSED, FAILED, SKIPPED, INCONCLUSIVE = "passed", "failed", "skipped", "inconclusive"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact that speaks against a variant: what was measured and allowed (`message`), where, why, what to do.

    `cause` is empty where the evidence does not show one. `severity` overrides the rule's own.
    """

    code: str
    message: str
    layer: str = ""
    cause: str = ""
    remedy: str = ""
    softened: bool = False

    @property
    def rule(self) -> Rule:
        """The rule that was broken."""
        return RULES[self.code]

    @property
    def severity(self) -> Severity:
        """The rule's severity; `softened` makes it a warning."""
        return Severity.WARNING if self.softened else self.rule.severity

    def as_json(self) -> dict[str, Any]:
        """The form it has in the report."""
        return {
            "code": self.code,
            "rule": self.rule.name,
            "severity": self.severity.value,
            "layer": self.layer or None,
            "message": self.message,
            "cause": self.cause or None,
            "remedy": self.remedy or None,
        }


@dataclass(frozen=True)
class Result:
    """The outcome of one check on one variant. `reason` explains a skipped or inconclusive one."""

    check: str
    outcome: str
    findings: tuple[Finding, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    def __bool__(self) -> bool:
        """Whether the check passed."""
        return self.outcome == PASSED

    def as_json(self) -> dict[str, Any]:
        """The form it has in the report."""
        return {
            "check": self.check,
            "outcome": self.outcome,
            "reason": self.reason or None,
            "metrics": self.metrics,
            "findings": [finding.as_json() for finding in self.findings],
        }


def judge(check: str, findings: Iterable[Finding], metrics: dict[str, Any]) -> Result:
    """Errors fail, gaps leave it open, else it passed."""
    found = tuple(findings)
    severities = {finding.severity for finding in found}
    if Severity.ERROR in severities:
        return Result(check, FAILED, found, metrics)
    if Severity.GAP in severities:
        gap = next(finding for finding in found if finding.severity is Severity.GAP)
        return Result(check, INCONCLUSIVE, found, metrics, gap.message)
    return Result(check, PASSED, found, metrics)


def skipped(check: str, reason: str) -> Result:
    """A check that has nothing to do, because the user gave nothing for it."""
    return Result(check, SKIPPED, reason=reason)


def without_ignored(result: Result, ignored: tuple[str, ...]) -> Result:
    """The result as it is when findings of the ignored codes don't count; how many there were is kept as a metric."""
    kept = tuple(finding for finding in result.findings if finding.code not in ignored)
    if len(kept) == len(result.findings):
        return result
    metrics = {**result.metrics, "ignored_findings": len(result.findings) - len(kept)}
    return judge(result.check, kept, metrics) if result.outcome != SKIPPED else result
