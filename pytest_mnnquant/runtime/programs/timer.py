"""The program of a child process: how long two models take side by side, what one holds, and its operators' times.

    python timer.py JOB.json

Like `runner.py` it imports nothing from this package.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

_spec = importlib.util.spec_from_file_location("runner", Path(__file__).with_name("runner.py"))
assert _spec is not None
assert _spec.loader is not None
runner: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runner)

# A sample shorter than this, in seconds, measures the clock and the interpreter, not the model.
SHORTEST = 2e-4


def opened(job: dict[str, Any], which: int, batch: dict[str, Any]) -> Any:
    """A session of one of the models, fed, and run a few times: a failing one says so here."""
    threads = job["threads"]  # One number, or one for each model.
    own = {**job, "threads": threads[which] if isinstance(threads, list) else threads}
    session = runner.Session(own, job["models"][which])
    names = job["names"][which]
    session.feed({names[name]: array for name, array in batch.items()})
    for _ in range(job["warmup"]):
        session.run()
    return session


def timed(session: Any, loops: int) -> float:
    """Seconds that an inference takes."""
    start = time.perf_counter()
    for _ in range(loops):
        session.net.runSession(session.session)
    return (time.perf_counter() - start) / loops


def is_known(times: list[list[float]], width: float, limit: float | None) -> bool:
    """Whether the median ratio is known to `width`, on one side of a limit.

    By its 95 % interval, as `metrics.ratio.paired_ratio` has it.
    """
    import numpy as np

    ratios = np.sort(np.array(times[1]) / np.array(times[0]))
    reach = 0.98 * len(ratios) ** 0.5
    low = ratios[int(max(0, len(ratios) / 2 - reach))]
    high = ratios[int(min(len(ratios) - 1, len(ratios) / 2 + reach + 1))]
    return bool((high - low) / 2 <= width * np.median(ratios) and (limit is None or not low <= limit <= high))


def paired(job: dict[str, Any]) -> dict[str, Any]:
    """Run both models in turn, A B, B A, ..., until the ratio is known well enough or the time is over.

    Every `round` pairs the sessions are made anew, in the other order: where memory happens to lie is then no part of
    the figure.
    """
    batch = next(iter(runner.batches(job)))
    times: list[list[float]] = [[], []]
    starts: list[int] = []
    loops, end = 0, time.monotonic() + job["budget"]
    while True:
        made = {which: opened(job, which, batch) for which in ((0, 1) if len(starts) % 2 == 0 else (1, 0))}
        sessions = [made[0], made[1]]
        loops = loops or max(1, round(SHORTEST / max(1e-7, min(timed(session, 5) for session in sessions))))
        starts.append(len(times[0]))
        done = len(times[0])
        runner.advance(done, job["pairs"] if done < job["pairs"] else job["most"], "pairs")
        for number in range(job["round"]):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                times[which].append(timed(sessions[which], loops))
            if time.monotonic() > end:
                return {"times": times, "loops": loops, "starts": starts}
        enough = len(times[0]) >= job["pairs"] and is_known(times, job["width"], job["limit"])
        if enough or len(times[0]) >= job["most"]:
            return {"times": times, "loops": loops, "starts": starts}


def resident() -> tuple[int, int]:
    """(bytes that this process holds now, the most it held since its peak was forgotten)."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(value.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


def used(job: dict[str, Any], mode: int) -> dict[str, Any]:
    """Bytes of MNN's session, and by how much this process grew at most, to load a model and run it once."""
    before = None
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Forget the peak so far (proc(5)).
        before, _ = resident()
    except OSError:  # Not Linux.
        pass
    try:
        session = runner.Session({**job, "memory": mode}, job["model"])
        session.feed(next(iter(runner.batches(job))))
        session.run()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    megabytes = session.net.getSessionInfo(session.session, 0)
    peak = None if before is None else max(0, resident()[1] - before)
    return {"session": round(megabytes * (1 << 20)), "peak": peak}


def memory(job: dict[str, Any]) -> dict[str, Any]:
    """What a model holds in each memory mode; each in a process of its own, which starts from the same state."""
    import MNN  # noqa: F401
    import numpy as np  # noqa: F401

    found = {}
    for mode in job["modes"]:
        place = Path(f"memory{mode}.json")
        child = os.fork() if hasattr(os, "fork") else 0
        if child == 0:
            place.write_text(json.dumps(used(job, mode)))
            if hasattr(os, "fork"):
                os._exit(0)
        else:
            _, status = os.waitpid(child, 0)
            if status:
                place.write_text(json.dumps({"error": f"MNN crashed with signal {os.WTERMSIG(status)}"}))
        found[str(mode)] = json.loads(place.read_text())
    return {"modes": found}


def profile(job: dict[str, Any]) -> dict[str, Any]:
    """[name, kind, seconds] of each operator, the median over the runs; looking takes some microseconds each."""
    import statistics

    session = runner.Session(job, job["model"])
    session.feed(next(iter(runner.batches(job))))
    session.run()
    spans: dict[tuple[str, str], list[float]] = {}
    started = [0.0]

    def before(_tensors: Any, _info: Any) -> bool:
        started[0] = time.perf_counter()
        return True

    def after(_tensors: Any, info: Any) -> bool:
        spans.setdefault((info.getName(), info.getType()), []).append(time.perf_counter() - started[0])
        return True

    for _ in range(job["runs"]):
        session.net.runSessionWithCallBackInfo(session.session, before, after)
    return {"ops": [[name, kind, statistics.median(times)] for (name, kind), times in spans.items()]}


runner.TASKS.update({"paired": paired, "memory": memory, "profile": profile})

if __name__ == "__main__":
    runner.main()
