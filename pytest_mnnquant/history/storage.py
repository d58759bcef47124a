"""The files of the history: one per run, in pytest-benchmark's format and folder. Does not import pytest.

Every run writes one file with a unique name, atomically: parallel runs lose nothing, and a killed run leaves its last
state. `pytest-benchmark` lists and compares these files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.cache.atomic_write import write_whole
from pytest_mnnquant.findings.figures import REAL, WHOLE, Figures
from pytest_mnnquant.findings.json_fields import BadField, mapping, numbers, text

#: The key of this package's part of a file.
KEY: Final = "mnnquant"
SCHEMA: Final = 1
#: pytest-benchmark's name of a missing branch: for a commit that CI checked out, and without a repository.
DETACHED: Final = "(detached head)"
NO_BRANCH: Final = (DETACHED, "(unknown)")
_TEXTS: Final = ("model", "variant", "source", "metric", "sha256", "float_sha256", "path")
_FILE: Final = "file://"
_NUMBER: Final = re.compile(r"(\d{4,})_")


@dataclass(frozen=True)
class Machine:
    """What metrics depend on besides the code: processor, its instruction sets (a hash), and MNN's version."""

    machine: str = ""
    cpu: str = ""
    flags: str = ""
    mnn: str = ""

    def __str__(self) -> str:
        """The machine as text: `AMD EPYC 7B13, MNN 3.6.1`."""
        return f"{self.cpu or self.machine or 'unknown processor'}, MNN {self.mnn or 'unknown'}"


@dataclass(frozen=True)
class Run:
    """One run of the suite. Times are in UTC; `commit` is empty without a repository.

    `branch` is empty if it is missing or unknown (CI checks out a commit, and HEAD is detached). `complete` is False
    for runs that were killed or stopped: they hold the metrics until then.
    """

    path: Path
    time: datetime
    commit: str = ""
    commit_time: datetime | None = None
    branch: str = ""
    dirty: bool = False
    complete: bool = True
    machine: Machine = field(default_factory=Machine)
    figures: tuple[Figures, ...] = ()


def machine_of(machine_info: Mapping[str, Any], mnn: str) -> Machine:
    """The machine, from pytest-benchmark's machine info."""
    cpu = machine_info.get("cpu")
    cpu = cpu if isinstance(cpu, Mapping) else {}
    flags = " ".join(sorted(map(str, cpu.get("flags") or ())))
    return Machine(
        machine=str(machine_info.get("machine") or ""),
        cpu=str(cpu.get("brand_raw") or machine_info.get("processor") or ""),
        flags=hashlib.sha256(flags.encode()).hexdigest()[:12] if flags else "",
        mnn=mnn,
    )


def part_of(figures: tuple[Figures, ...], machine: Machine, *, complete: bool) -> dict[str, Any]:
    """This package's part of a file: all metrics without the layers, which are in the report."""
    return {
        "schema": SCHEMA,
        "complete": complete,
        "host": dataclasses.asdict(machine),
        "figures": [figures_part(row) for row in figures],
    }


def figures_part(figures: Figures) -> dict[str, Any]:
    """One variant's metrics in the form of the file."""
    return {name: value for name, value in dataclasses.asdict(figures).items() if name != "layers"}


def storage_folder(uri: str | None) -> Path | None:
    """The folder of pytest-benchmark's storage, given as a path or as file://PATH; None for other storages."""
    if uri is None or ("://" in uri and not uri.startswith(_FILE)):
        return None
    return Path(uri.removeprefix(_FILE))


def file_name(commit: str, time: datetime) -> str:
    """A unique file name for a run."""
    moment = time.astimezone(timezone.utc).strftime("%Y%m%d_%H%M%S_%f")
    return f"{KEY}_{re.sub(r'[^0-9A-Za-z]', '', commit) or 'unversioned'}_{moment}_{secrets.token_hex(4)}.json"


def numbered(folder: Path, name: str) -> str:
    """The name with the next number of pytest-benchmark, which uses it to find runs to compare with."""
    matches = (match[1] for path in folder.glob("*.json") if (match := _NUMBER.match(path.name)))
    return f"{max((int(number) for number in matches), default=0) + 1:04}_{name}"


def write_run(path: Path, content: Mapping[str, Any], dumps: Callable[[Any], str] = json.dumps) -> None:
    """Write the file of a run atomically. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (dumps(content) + "\n").encode())


def read_runs(folder: Path, warn: Callable[[str], None] = lambda _: None) -> tuple[Run, ...]:
    """All runs of the suite in a storage, in the order of time.

    Files of pytest-benchmark without this package's metrics are skipped. A file that can't be read is skipped too, and
    `warn` gets one line.
    """
    runs = []
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        try:
            run = _read(path)
        except FileNotFoundError:
            continue  # a running process has just renamed it
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error) or "damaged"
            warn(f"{path}: skipped: {' '.join(str(reason).split())}")
            continue
        if run is not None:
            runs.append(run)
    return tuple(sorted(runs, key=lambda run: (run.time, run.path.name)))


def _read(path: Path) -> Run | None:
    try:
        content = mapping(json.loads(path.read_text(encoding="utf-8")), "file")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if KEY not in content:
        return None
    recorded = mapping(content[KEY], KEY)
    if recorded.get("schema") != SCHEMA:
        raise ValueError(f"{KEY}.schema: {recorded.get('schema')!r} is not {SCHEMA}: written by another version")
    time = _time(content.get("datetime"), "datetime")
    if time is None:
        raise ValueError("datetime: is missing")
    info = mapping(content.get("commit_info") or {}, "commit_info")
    host = mapping(recorded.get("host") or {}, f"{KEY}.host")
    rows = recorded.get("figures")
    if not isinstance(rows, list):
        raise BadField(f"{KEY}.figures: is not a list")
    commit, branch = (text(info, key, "commit_info") for key in ("id", "branch"))
    return Run(
        path=path,
        time=time,
        commit="" if commit in ("unversioned", "unknown") else commit,
        commit_time=_time(info.get("time"), "commit_info.time"),
        branch="" if branch in NO_BRANCH else branch,
        dirty=bool(info.get("dirty")),
        complete=bool(recorded.get("complete")),
        machine=Machine(*(text(host, field.name, f"{KEY}.host") for field in dataclasses.fields(Machine))),
        figures=tuple(_figures(row, f"{KEY}.figures[{place}]") for place, row in enumerate(rows)),
    )


def _figures(row: Any, where: str) -> Figures:
    row = mapping(row, where)
    failed = row.get("failed") or []
    values: dict[str, Any] = {name: text(row, name, where) for name in _TEXTS}
    values |= numbers(row, WHOLE, where, whole=True, low=0)
    values |= numbers(row, REAL, where, whole=False)
    return Figures(
        **values,
        lower_is_better=bool(row.get("lower_is_better")),
        failed=tuple(str(name) for name in failed) if isinstance(failed, list) else (),
    )


def _time(value: Any, where: str) -> datetime | None:
    if value is None:
        return None
    try:
        # Python 3.10 does not know the Z of git's own times.
        time = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return time.astimezone(timezone.utc) if time.tzinfo else time.replace(tzinfo=timezone.utc)
    except (AttributeError, ValueError, OverflowError):  # OverflowError: in UTC it is before the year 1.
        raise ValueError(f"{where}: {value!r} is not a time") from None
