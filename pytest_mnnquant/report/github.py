"""GitHub Actions: annotations on the lines of a pull request, and the summary page of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.report.model import Report
from pytest_mnnquant.report.variant_report import ReportedFinding

# GitHub shows this number of annotations of each kind per step, and drops a summary longer than this.
_SHOWN: Final = 10
_SUMMARY: Final = 1 << 20
# GitHub cuts the message of an annotation at this length.
_LONGEST: Final = 4_000


def append_summary(text: str, path: Path) -> str:
    """Append to the summary of the job. Returns a line that says why it can't be written; else empty."""
    encoded = text.encode("utf-8", "backslashreplace")
    try:
        with path.open("ab") as file:
            if file.tell() + len(encoded) > _SUMMARY:
                return f"GITHUB_STEP_SUMMARY: {path} would exceed GitHub's limit of 1 MiB; nothing was added"
            file.write(encoded)
    except OSError as error:
        return f"GITHUB_STEP_SUMMARY: {path} can't be written: {error.strerror}"
    return ""


def render(report: Report) -> str:
    """The commands of the annotations, one per line: for each root error, and for each rule with warnings."""
    return "".join(f"{line}\n" for line in commands(report))


def commands(report: Report) -> Iterator[str]:
    """A command for each error that is not a consequence, and for each rule with warnings."""
    errors = [(error, model.name, model.file) for model in report.models for error in model.findings(Severity.ERROR)]
    if report.baseline is not None:
        errors += [(finding, "", report.baseline.path) for finding in report.baseline.check.findings]
    for error, name, file in errors[:_SHOWN]:
        yield _command("error", error, name, file)
    if len(errors) > _SHOWN:
        yield f"pytest-mnnquant: {len(errors) - _SHOWN} more errors are listed above; GitHub shows {_SHOWN} per step"
    warnings: dict[tuple[str, str], str] = {}
    for model in report.models:
        for warning in model.findings(Severity.WARNING):
            command = _command("warning", warning, model.name, model.file)
            warnings.setdefault((model.name, warning.code), command)
    yield from list(warnings.values())[:_SHOWN]


def _command(kind: str, finding: ReportedFinding, name: str, file: str | None) -> str:
    layer = f"{finding.layer}: " if finding.layer else ""
    parts = [f"{name} {finding.variant} {finding.check}: ".lstrip() + layer + finding.message]
    parts += [f"why: {finding.cause}"] if finding.cause else []
    parts += [f"fix: {finding.fix}"] if finding.fix else []
    parts.append(f"more: pytest-mnnquant explain {finding.code}")
    place = _in_workspace(file)
    properties = [f"file={_property(place)}"] if place else []
    properties.append(f"title={_property(finding.rule.title)}")
    return f"::{kind} {','.join(properties)}::{_data(chr(10).join(parts)[:_LONGEST])}"


def _in_workspace(file: str | None) -> str:
    """The file's path in the repository; empty if it is not a file of the repository."""
    if not file:
        return ""
    root = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd())
    try:
        return Path(os.path.realpath(file)).relative_to(os.path.realpath(root)).as_posix()
    except ValueError:
        return ""


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
