"""Report files: the ending of a file's name says which module of this package writes it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

#: Ending of a report's name: the module with `render(report) -> str`, loaded only where such a report is asked for.
WRITERS: Final = {
    ".json": "json_report",
    ".md": "markdown",
    ".html": "html",
}
Render = Callable[[Mapping[str, Any]], str]


def renderer(path: Path) -> Render:
    """What makes the text of this report. Raises `ValueError` for an ending that nobody writes or a missing extra."""
    if path.suffix not in WRITERS:
        raise ValueError(f"--mnn-report: {path.name}: reports end in {', '.join(WRITERS)}")
    try:
        found: Render = importlib.import_module(f"{__package__}.{WRITERS[path.suffix]}").render
    except ModuleNotFoundError as error:
        needed = f"{str(error.name).partition('.')[0]} is missing: pip install 'pytest-mnnquant[report]'"
        raise ValueError(f"--mnn-report: {path.name}: {needed}") from None
    return found


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write the report as a whole or not at all. Raises `OSError`."""
    text = renderer(path)(report).encode("utf-8", "backslashreplace")  # Names of files may hold any byte.
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(text)
    unfinished.replace(path)
