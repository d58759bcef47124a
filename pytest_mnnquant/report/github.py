"""GitHub Actions: annotations on the lines of a pull request, and the summary page of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pytest_mnnquant.report.markdown import render
from pytest_mnnquant.report.rows import Json, Told, told

# GitHub shows so many of each kind for a step, and drops a summary that is longer than this.
_SHOWN: Final = 10
_SUMMARY: Final = 1 << 20
# A message of an annotation is cut there by GitHub.
_LONGEST: Final = 4_000


def append_summary(report: Json) -> str:
    """Append to the summary of the job, where GitHub wants one. Returns a line that says why it can't be written."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return ""
    try:
        text = render(report).encode("utf-8", "backslashreplace")
        with Path(name).open("ab") as file:
            if file.tell() + len(text) > _SUMMARY:
                return f"GITHUB_STEP_SUMMARY: {name} would be longer than GitHub takes (1 MiB); nothing was added"
            file.write(text)
    except OSError as error:
        return f"GITHUB_STEP_SUMMARY: {name} can't be written: {error.strerror}"
    return ""


def commands(report: Json) -> Iterator[str]:
    """A command for each error that follows from no other, and for each rule that warns."""
    errors = [(one, model["name"], model["file"]) for model in report["models"] for one in told(model, "error")]
    if (baseline := report["baseline"]) is not None:
        check = baseline["check"]
        errors += [(Told("", check["check"], one), "", baseline["path"]) for one in check["findings"]]
    for one, name, file in errors[:_SHOWN]:
        yield _command("error", one, name, file)
    if len(errors) > _SHOWN:
        yield f"pytest-mnnquant: {len(errors) - _SHOWN} more errors are told above; GitHub shows {_SHOWN} a step"
    warned: dict[tuple[str, str], str] = {}
    for model in report["models"]:
        for one in told(model, "warning"):
            warned.setdefault(
                (model["name"], one.finding["code"]), _command("warning", one, model["name"], model["file"])
            )
    yield from list(warned.values())[:_SHOWN]


def _command(kind: str, one: Told, name: str, file: str | None) -> str:
    finding = one.finding
    layer = f"{finding['layer']}: " if finding["layer"] else ""
    parts = [f"{name} {one.label} {one.check}: ".lstrip() + layer + finding["message"]]
    parts += [f"why: {finding['cause']}"] if finding["cause"] else []
    parts += [f"fix: {finding['remedy']}"] if finding["remedy"] else []
    parts.append(f"more: pytest-mnnquant explain {finding['code']}")
    place = _in_workspace(file)
    properties = ([f"file={_property(place)}"] if place else []) + [
        f"title={_property(finding['code'] + ' ' + finding['rule'])}"
    ]
    return f"::{kind} {','.join(properties)}::{_data(chr(10).join(parts)[:_LONGEST])}"


def _in_workspace(file: str | None) -> str:
    """The file as GitHub names it; empty where it is no file of the repository."""
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
