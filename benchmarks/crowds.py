"""Many runs, workers and models at once: `python benchmarks/crowds.py FOLDER [PART ...]`.

`pairs`: 20 times, two runs start at once in one folder with one empty cache. `workers`: 8 workers of xdist. `models`:
200 models in one run, with the open files and the memory of pytest's process after each. `descriptors`: 100 models,
with at most 128 open files per process. The verdicts must be those of one quiet run, and neither files nor memory may
grow with the number of models. Prints what was measured, and what is wrong; exit status 1 if anything is.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matrix_smoke import write_model

PAIRS = 20
WORKERS = 8
MODELS = 200
LIMITED_MODELS = 100
OPEN_FILES = 128
#: Allowed growth of pytest's process from the first fifth of the models to the last.
FILES_GROWTH = 3
MEGABYTES_GROWTH = 30.0
OPTIONS = ("-q", "-p", "no:cacheprovider", "--benchmark-disable", "--mnn-recipe=w8", "--mnn-evaluation=data.npz")
# Notes the open files and the resident bytes of pytest's process after the last check of each model.
NOTES = """
import json, os
from pathlib import Path

seen = {}

def pytest_runtest_logfinish(nodeid):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    seen[nodeid.partition("::")[0]] = (len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGE_SIZE"))

def pytest_unconfigure():
    Path("notes.json").write_text(json.dumps(list(seen.values())))
"""
Verdicts = dict[tuple[str, str, str], tuple[str, tuple[str, ...]]]


def write_models(folder: Path, count: int) -> None:
    """Write models that differ in one weight, and data."""
    folder.mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    write_model(folder)
    content = (folder / "net.mnn").read_bytes()
    weight = struct.pack("<f", np.random.default_rng(0).standard_normal(64 * 64)[0])
    assert content.count(weight) == 1
    for number in range(count):
        changed = content.replace(weight, struct.pack("<f", 0.5 + number / 1000))
        (folder / f"net{number:03}.mnn").write_bytes(changed)
    data = np.random.default_rng(1).standard_normal((8, 64, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=data)


def start(folder: Path, report: str, models: int, *words: str, files: int = 0) -> subprocess.Popen[bytes]:
    """Start pytest on the first models; `files` limits the open files of each process."""

    def limit() -> None:
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    names = [f"--mnn-model=net{number:03}.mnn" for number in range(models)]
    command = [sys.executable, "-m", "pytest", *OPTIONS, *names, f"--mnn-report={report}", *words]
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    log = (folder / f"{report}.log").open("wb")
    with log:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, preexec_fn=limit
        )


def verdicts(path: Path) -> Verdicts:
    """The outcome and the codes of each check."""
    report: dict[str, Any] = json.loads(path.read_text())
    return {
        (model["name"], variant["recipe"], check["check"]): (
            check["outcome"],
            tuple(sorted(finding["code"] for finding in check["findings"])),
        )
        for model in report["models"]
        for variant in model["variants"]
        for check in variant["checks"]
    }


def difference(name: str, folder: Path, report: str, status: int, expected: Verdicts) -> list[str]:
    """What is wrong with a run: its exit status, a report that is missing, or other verdicts."""
    if status or not (folder / report).exists():
        return [f"{name}: exit status {status}, see {folder / report}.log"]
    actual = verdicts(folder / report)
    return [
        f"{name}: {key}: {actual.get(key)}, not {value}" for key, value in expected.items() if actual.get(key) != value
    ]


def quiet(folder: Path, models: int) -> Verdicts:
    """The verdicts of a run without others beside it."""
    process = start(folder, "quiet.json", models, "--mnn-cache-dir=quiet")
    assert process.wait() == 0, folder / "quiet.json.log"
    return verdicts(folder / "quiet.json")


def pairs(folder: Path) -> list[str]:
    """Two runs at once, again and again."""
    write_models(folder, 3)
    expected, wrong = quiet(folder, 3), []
    for number in range(PAIRS):
        cache = f"--mnn-cache-dir=cache{number}"
        both = {name: start(folder, name, 3, cache) for name in ("first.json", "second.json")}
        for name, process in both.items():
            wrong += difference(f"pair {number}", folder, name, process.wait(), expected)
        shutil.rmtree(folder / f"cache{number}")
    return wrong


def workers(folder: Path) -> list[str]:
    """Workers of xdist, which make and judge the same variants."""
    write_models(folder, WORKERS)
    expected = quiet(folder, WORKERS)
    status = start(folder, "spread.json", WORKERS, f"-n{WORKERS}", "--mnn-cache-dir=cache").wait()
    return difference("workers", folder, "spread.json", status, expected)


def models(folder: Path) -> list[str]:
    """Many models in one run: each has the same verdicts, and pytest's process does not grow."""
    write_models(folder, MODELS)
    (folder / "conftest.py").write_text(NOTES)
    expected = quiet(folder, 1)
    status = start(folder, "all.json", MODELS, "--mnn-cache-dir=cache").wait()
    wrong = difference("models", folder, "all.json", status, _for_all(expected, MODELS))
    notes = json.loads((folder / "notes.json").read_text())
    fifth = len(notes) // 5
    (files, more_files), (size, more_size) = (
        (
            statistics.mean(row[column] for row in notes[fifth : 2 * fifth]),
            statistics.mean(row[column] for row in notes[-fifth:]),
        )
        for column in (0, 1)
    )
    growth = (more_size - size) / 1e6
    print(
        f"{len(notes)} models: {files:.1f} to {more_files:.1f} open files, {size / 1e6:.0f} to {more_size / 1e6:.0f} MB"
    )
    wrong += [f"models: {more_files - files:.1f} more open files"] if more_files - files > FILES_GROWTH else []
    return wrong + ([f"models: {growth:.0f} MB more memory"] if growth > MEGABYTES_GROWTH else [])


def descriptors(folder: Path) -> list[str]:
    """Many models where few files may be open."""
    write_models(folder, LIMITED_MODELS)
    expected = _for_all(quiet(folder, 1), LIMITED_MODELS)
    status = start(folder, "limited.json", LIMITED_MODELS, "--mnn-cache-dir=cache", files=OPEN_FILES).wait()
    return difference("descriptors", folder, "limited.json", status, expected)


def _for_all(of_first: Verdicts, count: int) -> Verdicts:
    """The verdicts of the first model for each of these models."""
    return {(f"net{number:03}", *key[1:]): value for number in range(count) for key, value in of_first.items()}


PARTS: dict[str, Callable[[Path], list[str]]] = {
    "pairs": pairs, "workers": workers, "models": models, "descriptors": descriptors,
}  # fmt: skip


def main(folder: Path, names: list[str]) -> int:
    """Run the parts of these names, or all; returns the exit status."""
    failed = 0
    for name in names or PARTS:
        begun = time.monotonic()
        wrong = PARTS[name](folder / name)
        failed += bool(wrong)
        print(
            "\n".join(wrong[:20])
            + "\n" * bool(wrong)
            + f"{name}: {time.monotonic() - begun:.0f} s, wrong: {len(wrong)}"
        )
        sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
