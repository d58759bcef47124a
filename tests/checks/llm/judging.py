"""Judges an export of `tests/llm/data` and says which errors are roots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_mnnquant.checks.llm.collect import collect_evidence
from pytest_mnnquant.checks.llm.registry import check_export
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.requests import RequestedForm
from tests.llm.conftest import DATA


@dataclass(frozen=True)
class Root:
    """What identifies a root cause."""

    check: str
    code: str
    layer: str


def source_of(name: str) -> Path:
    """The checkpoint that an export of `tests/llm/data` was made from."""
    return DATA / ("qwen2" if name.startswith("bad-") else name.split("-")[0])


def judge(export: Path, source: Path | None = None, form: RequestedForm | None = None) -> dict[str, Result]:
    """The results of all static checks."""
    return check_export(collect_evidence(export, read_checkpoint(source or source_of(export.name)), form))


def findings(results: Mapping[str, Result], severity: Severity = Severity.ERROR) -> list[Finding]:
    """The findings of one severity; errors that follow from others are consequences."""
    return [finding for result in results.values() for finding in result.findings if finding.severity is severity]


def roots(results: Mapping[str, Result]) -> list[Root]:
    """The root causes."""
    return [Root(finding.check, finding.code, finding.layer) for finding in findings(results)]


def warnings(results: Mapping[str, Result]) -> list[str]:
    """The codes of warnings."""
    return [finding.code for finding in findings(results, Severity.WARNING)]
