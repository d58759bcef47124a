"""Kills runs at random moments: `python benchmarks/kills.py FOLDER [COUNT] [FIRST]`.

Each run judges a model and updates a baseline, with SIGKILL, SIGTERM or SIGINT after a random time; every fourth with
`-n 4`. Afterwards the baseline is the old or the new file, no process is left after 10 seconds, and the next run
passes and leaves no unfinished folder in the cache. Prints what is wrong; exit status 1 if anything is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from matrix_smoke import write_model

KINDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
OPTIONS = ("-q", "-p", "no:cacheprovider", "--mnn-model=net.mnn", "--mnn-cache-dir=cache", "--mnn-baseline=b.json")
MARK = "MNNQUANT_KILLS"


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start pytest in its own session."""
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {MARK: folder.name}
    command = [sys.executable, "-m", "pytest", *OPTIONS, *words]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=nowhere, stderr=nowhere, start_new_session=True
    )


def orphans(folder: Path) -> list[int]:
    """The processes that runs in this folder have left."""
    mark = f"{MARK}={folder.name}".encode()
    places = (place for place in Path("/proc").glob("[0-9]*") if mark in _environment(place).split(b"\0"))
    return [int(place.name) for place in places]


def _environment(place: Path) -> bytes:
    try:
        return (place / "environ").read_bytes()
    except OSError:  # It ended, or is another user's.
        return b""


def is_whole(path: Path) -> bool:
    """Whether a baseline is missing, or can be read."""
    try:
        return "models" in json.loads(path.read_text())
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def kill_once(folder: Path, number: int, longest: float) -> list[str]:
    """Kill a run after a random time; returns what is wrong afterwards."""
    chooser = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    recipes = [f"--mnn-recipe=w{bits}" for bits in chooser.sample(range(3, 9), 2)]
    words = [*recipes, "--mnn-update-baseline", *(["-n", "4"] if number % 4 == 0 else [])]
    process = start(folder, *words)
    time.sleep(chooser.uniform(0, longest))
    process.send_signal(kind)
    wrong = []
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        wrong.append(f"still runs 10 s after {kind.name}")
        process.kill()
    deadline = time.monotonic() + 10
    while (left := orphans(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    wrong += [f"processes left after 10 s: {len(left)}"] if left else []
    wrong += [] if is_whole(folder / "b.json") else ["the baseline is damaged"]
    return [f"{number} ({kind.name}): {text}" for text in wrong]


def main(folder: Path, count: int, first: int) -> int:
    """Kill `count` runs, the first of which has the number `first`; returns the exit status."""
    folder.mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    write_model(folder)
    begun = time.monotonic()
    start(folder, "--mnn-recipe=w8", "--mnn-update-baseline").wait()
    longest = 1.5 * (time.monotonic() - begun)
    wrong: list[str] = []
    statuses: Counter[int] = Counter()
    for number in range(first, first + count):
        wrong += kill_once(folder, number, longest)
        if number % 10 == 9:
            status = start(folder, "--mnn-recipe=w8", "-k", "not baseline and not entries").wait()
            statuses[status] += 1
            unfinished = list((folder / "cache").rglob("unfinished-*"))
            wrong += [f"{number}: the next run ended with {status}"] if status else []
            wrong += [f"{number}: {len(unfinished)} unfinished folders after the next run"] if unfinished else []
    print("\n".join(wrong))
    print(f"{count} kills, next runs by exit status: {dict(statuses)}, wrong: {len(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    sys.exit(main(Path(sys.argv[1]).resolve(), *(numbers + [200, 0][len(numbers) :])))
