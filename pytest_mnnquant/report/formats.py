"""The formats of the report: the destination of each, the module that renders it, and what it needs from the run."""

from __future__ import annotations

import enum
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from pytest_mnnquant.cache.atomic_write import replacement
from pytest_mnnquant.report.model import Report
from pytest_mnnquant.report.variant_report import CheckReport, VariantReport

# Bytes at the beginning of a report that identify it.
_START: Final = 2048


class Destination(enum.Enum):
    """The destination of a format's text."""

    REPORT_FILE = "a file that --mnn-report names, by its suffix"
    JOB_SUMMARY = "the file of GITHUB_STEP_SUMMARY"
    JOB_LOG = "the terminal of a job on GitHub"
    TEST_PROPERTIES = "the properties of each test, in JUnit files"


@dataclass(frozen=True, slots=True)
class Format:
    """One format. `module` is loaded only if the format is requested.

    It has a function `render(report) -> str`; for properties of tests `properties(model, variant, check)`.
    `beginning` is a pattern in the first bytes of its files.
    """

    destination: Destination
    module: str
    suffix: str = ""
    beginning: str = ""
    needs_charts: bool = False
    needs_history: bool = False

    def load(self) -> ModuleType:
        """The module. Raises `ModuleNotFoundError` if a package that it needs is not installed."""
        return importlib.import_module(f"{__package__}.{self.module}")

    def render(self, report: Report) -> str:
        """The text of a report."""
        text: str = self.load().render(report)
        return text


FORMATS: Final = (
    Format(Destination.REPORT_FILE, "json_report", ".json", r'\A\{\s*"schema": \d+,\s*"tool": \{'),
    Format(Destination.REPORT_FILE, "markdown", ".md", r"\A## MNN quantization: "),
    Format(Destination.REPORT_FILE, "html", ".html", "MNN quantization</title>", needs_charts=True, needs_history=True),
    Format(Destination.JOB_SUMMARY, "markdown"),
    Format(Destination.JOB_LOG, "github"),
    Format(Destination.TEST_PROPERTIES, "properties"),
)


def formats_for(destination: Destination) -> Iterator[Format]:
    """The formats with this destination."""
    return (known for known in FORMATS if known.destination is destination)


def file_format(path: Path) -> Format:
    """The format of a report file. Raises `ValueError` for an unsupported suffix."""
    by_suffix = {known.suffix: known for known in formats_for(Destination.REPORT_FILE)}
    if path.suffix not in by_suffix:
        raise ValueError(f"--mnn-report: {path.name}: unknown suffix; expected one of {', '.join(by_suffix)}")
    return by_suffix[path.suffix]


def require_format(path: Path) -> None:
    """Load the module that writes a report file. Raises `ValueError` for an unsupported suffix or a missing extra."""
    try:
        file_format(path).load()
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        hint = f"{missing} is missing: pip install 'pytest-mnnquant[report]'"
        raise ValueError(f"--mnn-report: {path.name}: {hint}") from None


def is_own_report(path: Path) -> bool:
    """Whether a file is empty or a report, of the format of its suffix."""
    try:
        with path.open("rb") as file:
            start = file.read(_START).decode("utf-8", "replace")
    except OSError:  # Reported when the report is written.
        return True
    return not start or re.search(file_format(path).beginning, start) is not None


def needs_charts(paths: Iterable[Path]) -> bool:
    """Whether one of these report files shows charts, so that checks have to collect their data."""
    with_charts = {known.suffix for known in FORMATS if known.needs_charts}
    return any(path.suffix in with_charts for path in paths)


def write_report(report: Report, path: Path) -> None:
    """Write the report atomically. Raises `OSError`."""
    text = file_format(path).render(report).encode("utf-8", "backslashreplace")  # File names may contain any byte.
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacement(path) as unfinished:
        unfinished.write_bytes(text)


def properties_of_test(model: str, variant: VariantReport, check: CheckReport) -> list[tuple[str, str]]:
    """The properties of a test's check, in all formats for test properties."""
    modules = (known.load() for known in formats_for(Destination.TEST_PROPERTIES))
    return [pair for module in modules for pair in module.properties(model, variant, check)]
