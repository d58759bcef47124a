"""Converts damaged models: `python benchmarks/fuzz_convert.py FOLDER [COUNT] [FIRST]`.

Each of 9,000 cases is an ONNX, TFLite, MNN or JSON model with one kind of damage (`tests/hostile/conversions.py`),
given to `pytest-mnnquant convert` with a random request. MNN's converter runs in processes of its own, as always. The
answer must be exit status 1 with a reason and the earlier output in place, or 0 with a verdict and a file that
`inspect --expect` accepts; without a traceback, and in time. Prints each answer that is not; exit status 1 if there is
any.
"""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.hostile.conversions import Source, TooSlow, answer, sources, time_limit  # noqa: E402

CHUNK = 50
NATIVE_SECONDS = 5.0
CASE_SECONDS = 30.0
GIGABYTES = 8


def run_chunk(task: tuple[Path, tuple[Source, ...], int, int]) -> tuple[Counter[str], list[str], float]:
    """The cases `start` to `stop`: what came out, what is wrong, and the longest time in seconds."""
    folder, healthy, start, stop = task
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, resource.RLIM_INFINITY))
    kinds: Counter[str] = Counter()
    wrong, longest = [], 0.0
    for number in range(start, stop):
        place, began = folder / f"case-{start}", time.monotonic()
        try:
            with time_limit(CASE_SECONDS):
                kind, fault = answer(number, healthy, place, NATIVE_SECONDS)
        except TooSlow as error:
            kind, fault = "no end", str(error)
        kinds[kind] += 1
        if fault:
            wrong.append(f"{number} ({kind}): {fault}")
            shutil.copytree(place, folder / f"wrong-{number}", dirs_exist_ok=True)
        longest = max(longest, time.monotonic() - began)
        shutil.rmtree(place, ignore_errors=True)
    return kinds, wrong, longest


def main(folder: Path, count: int, first: int) -> int:
    """Run all cases on two processes; returns the exit status."""
    folder.mkdir(parents=True)
    healthy, began = sources(folder / "healthy"), time.monotonic()
    tasks = [(folder, healthy, at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)]
    total: Counter[str] = Counter()
    failed, longest = 0, 0.0
    with ProcessPoolExecutor(2) as pool:
        for kinds, wrong, slowest in pool.map(run_chunk, tasks):
            total += kinds
            failed += len(wrong)
            longest = max(longest, slowest)
            for line in wrong:
                print(line, flush=True)
    answers = ", ".join(f"{kind} {number:,}" for kind, number in sorted(total.items()))
    seconds = f"{time.monotonic() - began:.0f} s, slowest {longest:.1f} s"
    print(f"{count:,} conversions in {seconds}, wrong: {failed}; {answers}")
    return int(failed > 0)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    sys.exit(main(Path(sys.argv[1]).resolve(), *(numbers + [9000, 0][len(numbers) :])))
