"""One run of the plugin: as its user reads it, and as plain data."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

import pytest_mnnquant
from pytest_mnnquant.report.json_report import check_json
from pytest_mnnquant.report.record import CheckRecord

# A run in this process forgets the modules it imported; half of a package must not be known from an earlier run.
for _module in pkgutil.walk_packages(pytest_mnnquant.__path__, "pytest_mnnquant."):
    importlib.import_module(_module.name)

#: Names a folder that keeps what each run prints, for the pages of rules (benchmarks/rule_pages.py).
RECORD: Final = "MNNQUANT_RECORD_OUTPUT"
_OUR_CODE = re.compile(r"Traceback \(most|INTERNALERROR|pytest_mnnquant/[\w/]*\.py")
_SUMMARY = re.compile(r"(PASSED|FAILED|SKIPPED|ERROR)\s+(\S+)")


@dataclass(frozen=True)
class Outcome:
    """`text` is all that was printed, with every run of blanks as one; `items` maps node ids to their outcomes."""

    status: int
    text: str
    lines: tuple[str, ...]
    items: Mapping[str, str]
    checks: tuple[Mapping[str, Any], ...]

    def ended(self, outcome: str) -> set[str]:
        """The items with this outcome, by the last two parts of their ids: `int8::coverage`."""
        return {"::".join(name.split("::")[-2:]) for name, found in self.items.items() if found == outcome}

    @property
    def failed(self) -> set[str]:
        return self.ended("failed")

    @property
    def passed(self) -> set[str]:
        return self.ended("passed")

    @property
    def skipped(self) -> set[str]:
        return self.ended("skipped")

    def metrics(self, check: str) -> Mapping[str, Any]:
        """What the only check of this name measured."""
        (found,) = [item["metrics"] for item in self.checks if item["check"] == check]
        assert isinstance(found, Mapping)
        return found

    def told(self, check: str = "") -> list[Mapping[str, Any]]:
        """The findings of a check or of all; those that were merged into another of the same check too."""
        found: list[Mapping[str, Any]] = []
        for item in self.checks:
            for finding in item["findings"] if check in ("", item["check"]) else ():
                found += [finding, *(one for one in finding["consequences"] if one["check"] == item["check"])]
        return found

    def roots(self) -> list[tuple[str, str]]:
        """Rule and layer of each error that follows from no other."""
        findings = [finding for item in self.checks for finding in item["findings"]]
        return [(one["code"], one["layer"] or "") for one in findings if one["severity"] == "error"]

    def codes(self, check: str = "") -> set[str]:
        """The rules that were broken."""
        return {finding["code"] for finding in self.told(check)}

    def wording(self, code: str) -> str:
        """Layer, message, cause and fix of the only finding of a rule. All but a warning's fix is printed."""
        (finding,) = [finding for finding in self.told() if finding["code"] == code]
        parts = {name: finding[name] for name in ("layer", "message", "cause", "remedy") if finding[name]}
        printed = [part for name, part in parts.items() if name != "remedy" or finding["severity"] == "error"]
        unread = [part for part in printed if " ".join(part.split()) not in self.text]
        assert not unread, unread
        return "\n".join(f"{name}: {part}" for name, part in parts.items())

    def reason(self, check: str) -> str:
        """Why the only check of this name was skipped or is inconclusive; the user reads it, too."""
        (reason,) = [item["reason"] for item in self.checks if item["check"] == check]
        assert isinstance(reason, str)
        assert " ".join(reason.split()) in self.text
        return reason

    def failure(self, start: str) -> str:
        """What is printed about the first failing check whose title starts with this, down to its rules' pages."""
        (first, *_) = [
            number for number, line in enumerate(self.lines) if re.match(rf"{re.escape(start)}.* failed: ", line)
        ]
        end = next(number for number in range(first, len(self.lines)) if self.lines[number].startswith("  more: "))
        return "\n".join(self.lines[first : end + 1])

    def starting(self, start: str) -> str:
        """The lines that start with this, without what follows in the next ones."""
        return "\n".join(line for line in self.lines if line.startswith(start))

    def containing(self, part: str) -> str:
        """The first paragraph in which this is: its line, and those below that are set off further."""
        first = next(number for number, line in enumerate(self.lines) if part in line)
        indent = len(self.lines[first]) - len(self.lines[first].lstrip())
        paragraph = [self.lines[first].strip()]
        for line in self.lines[first + 1 :]:
            if len(line) - len(line.lstrip()) <= indent:
                break
            paragraph.append(line.strip())
        return " ".join(paragraph)

    def layers(self, code: str) -> set[str]:
        """The layers that a rule names."""
        return {finding["layer"] for finding in self.told() if finding["code"] == code}

    def tells(self, code: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        """Assert that a finding says this, and that the user gets to read it."""
        findings = [finding for finding in self.told() if finding["code"] == code]
        fitting = [
            finding
            for finding in findings
            if where in f"{finding['layer']}: {finding['message']}"
            and why in (finding["cause"] or "")
            and fix in (finding["remedy"] or "")
        ]
        assert fitting, f"no finding {code} with {where!r}, {why!r}, {fix!r} among {findings}"
        assert code in self.text
        for part in (where, why, fix):
            assert part in self.text


def outcome(result: pytest.RunResult) -> Outcome:
    """What a run of pytester did. No run may show our own code or a traceback to its user."""
    lines = tuple(result.outlines + result.errlines)
    if folder := os.environ.get(RECORD):
        (Path(folder) / f"{uuid.uuid4().hex}.txt").write_text("\n".join(lines), encoding="utf-8")
    ours = [line for line in lines if _OUR_CODE.search(line)]
    assert not ours, ours
    items: dict[str, str] = {}
    checks: list[Mapping[str, Any]] = []
    recorder: Any = getattr(result, "reprec", None)
    if not hasattr(recorder, "getreports"):  # in a process of its own, run with -rA; or it did not get that far
        items = {name: found.lower() for found, name in _SUMMARY.findall("\n".join(lines))}
    else:
        for report in recorder.getreports("pytest_runtest_logreport"):
            if report.when == "call" or report.outcome != "passed":
                items[report.nodeid] = report.outcome
            records = map(CheckRecord.from_json, getattr(report, "mnnquant", ()))
            checks += [check_json(record.check) for record in records]
    return Outcome(int(result.ret), " ".join(" ".join(lines).split()), lines, items, tuple(checks))
