"""Made-up runs of the suite, as they are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.history.storage import KEY, Machine, file_name, part_of, write_run

START = datetime(2026, 9, 1, 12, tzinfo=timezone.utc)
HOST = Machine("x86_64", "Some CPU", "abc", "3.6.1")
OTHER = Machine("x86_64", "Other CPU", "def", "3.6.1")


def sha(number: int) -> str:
    """A commit's name; the first eight digits are the number's."""
    return f"{number:08x}" + "0" * 32


def content(
    figures: Sequence[Figures], time: datetime, commit: Mapping[str, Any], machine: Machine = HOST
) -> dict[str, Any]:
    """What a run's file holds."""
    return {
        "machine_info": {"machine": machine.machine, "cpu": {"brand_raw": machine.cpu}},
        "commit_info": dict(commit),
        "benchmarks": [],
        "datetime": time.isoformat(),
        "version": "5.3.1",
        KEY: part_of(tuple(figures), machine, complete=True),
    }


def store(
    folder: Path,
    number: int,
    *,
    day: float | None = None,
    machine: Machine = HOST,
    dirty: bool = False,
    git: bool = True,
    branch: str = "main",
    model: str = "net",
    variant: str = "int8-eval",
    **figures: Any,
) -> Path:
    """Store a run of commit `number`, made on that day; `day` is when it ran."""
    made = START + timedelta(days=number)
    time = made + timedelta(hours=1) if day is None else START + timedelta(days=day)
    info: dict[str, Any] = (
        {"id": sha(number), "time": made.isoformat(), "dirty": dirty, "branch": branch}
        if git
        else {"id": "unversioned", "branch": "(unknown)"}
    )
    path = folder / "Linux-CPython-3.11-64bit" / file_name(info["id"], time)
    write_run(path, content([Figures(model, variant, **figures)], time, info, machine), json.dumps)
    return path
