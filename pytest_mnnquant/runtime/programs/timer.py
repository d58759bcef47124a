"""Times two models in turn, measures the memory of a model, and times its operators."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from .batches import batches, report_progress
from .module_api import Module
from .session import Session

# Seconds: shorter samples measure the clock and the interpreter, not the model.
SHORTEST = 2e-4
# The runs after which a model is warm: the most, or those that take `WARM` seconds, but at least the fewest.
FEWEST_WARM, MOST_WARM, WARM = 2, 10, 0.1
# How often both models are loaded again, at least.
ROUNDS = 5


def load(options: dict[str, Any], path: str) -> Session | Module:
    """A model in the API that `options["engine"]` names: only modules run While and If bodies."""
    return Module(options, path) if options.get("engine") == "module" else Session(options, path)


def open_session(job: dict[str, Any], which: int, batch: dict[str, Any]) -> Session | Module:
    """A session of one of the models, with inputs, after some runs for warm-up, the first of which shows failures."""
    threads = job["threads"]  # One number, or one per model.
    options = {**job, "threads": threads[which] if isinstance(threads, list) else threads}
    names = job["names"][which]
    if "outputs" in job:
        options.update(outputs=job["outputs"][which], input_names=job["input_names"][which])
    session = load(options, job["models"][which])
    session.feed({names[name]: array for name, array in batch.items()})
    start = time.perf_counter()
    for number in range(MOST_WARM):
        if number >= FEWEST_WARM and time.perf_counter() - start > WARM:
            break
        session.run()
    return session


def seconds_of(session: Session | Module, loops: int) -> float:
    """Seconds per inference, the mean of `loops` inferences."""
    start = time.perf_counter()
    for _ in range(loops):
        session.run_unchecked()
    return (time.perf_counter() - start) / loops


def is_known(times: list[list[float]], width: float, limit: float | None) -> bool:
    """Whether the median ratio is known to `width`, on one side of a limit.

    Uses the 95 % interval of `statistics.paired_ratio`.
    """
    import numpy as np

    ratios = np.sort(np.array(times[1]) / np.array(times[0]))
    reach = 0.98 * len(ratios) ** 0.5
    low = ratios[int(max(0, len(ratios) / 2 - reach))]
    high = ratios[int(min(len(ratios) - 1, len(ratios) / 2 + reach + 1))]
    return bool((high - low) / 2 <= width * np.median(ratios) and (limit is None or not low <= limit <= high))


def paired(job: dict[str, Any]) -> dict[str, Any]:
    """Run both models in turn, A B, B A, ..., until the ratio is precise enough or the time is over.

    After every round of pairs, new sessions are created in the other order, so that the ratio does not depend on memory
    addresses.
    """
    batch = next(iter(batches(job)))
    times: list[list[float]] = [[], []]
    starts: list[int] = []
    loops, least, end = 0, job["pairs"], time.monotonic() + job["budget"]
    while True:
        order = (0, 1) if len(starts) % 2 == 0 else (1, 0)
        opened = {which: open_session(job, which, batch) for which in order}
        sessions = [opened[0], opened[1]]
        if not loops:
            first = [seconds_of(session, 1) for session in sessions]
            if min(first) < 5 * SHORTEST:
                first = [seconds_of(session, 5) for session in sessions]
            loops = max(1, round(SHORTEST / max(1e-7, min(first))))
            least = min(least, max(job["fewest"], int(job["enough"] / max(1e-7, loops * sum(first)))))
        done = len(times[0])
        starts.append(done)
        report_progress(done, least if done < least else job["most"], "pairs")
        if not time_round(sessions, times, loops, max(1, least // ROUNDS), end) or is_enough(job, times, least):
            return {"times": times, "loops": loops, "starts": starts}


def time_round(sessions: list[Session | Module], times: list[list[float]], loops: int, pairs: int, end: float) -> bool:
    """Add some pairs to `times`; returns whether time is left before `end`."""
    for number in range(pairs):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            times[which].append(seconds_of(sessions[which], loops))
        if time.monotonic() > end:
            return False
    return True


def is_enough(job: dict[str, Any], times: list[list[float]], least: int) -> bool:
    """Whether no more pairs than these are needed."""
    pairs = len(times[0])
    return pairs >= job["most"] or (pairs >= least and is_known(times, job["width"], job["limit"]))


def resident() -> tuple[int, int]:
    """(bytes that this process uses now, its peak since the last reset)."""
    values = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            values[name] = int(value.split()[0]) * 1024
    return values["VmRSS"], values["VmHWM"]


def memory_of(job: dict[str, Any], mode: int) -> dict[str, Any]:
    """Bytes of MNN's session, and the peak growth of this process while it loads a model and runs it once."""
    before = None
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Reset the peak (proc(5)).
        before, _ = resident()
    except OSError:  # Not Linux.
        pass
    try:
        session = load({**job, "memory": mode}, job["model"])
        session.feed(next(iter(batches(job))))
        session.run()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    peak = None if before is None else max(0, resident()[1] - before)
    if isinstance(session, Session):
        return {"session": round(session.memory_mb * (1 << 20)), "peak": peak}
    # MNN does not report the memory of a module, and the memory of the process after the run depends on its allocator,
    # so the peak growth is used.
    return {"session": peak or 0, "peak": peak}


def memory(job: dict[str, Any]) -> dict[str, Any]:
    """The memory of a model in each memory mode, each in a separate process that starts from the same state."""
    import MNN  # noqa: F401
    import numpy as np  # noqa: F401

    modes = {}
    for mode in job["modes"]:
        file = Path(f"memory{mode}.json")
        child = os.fork() if hasattr(os, "fork") else 0
        if child == 0:
            file.write_text(json.dumps(memory_of(job, mode)))
            if hasattr(os, "fork"):
                os._exit(0)
        else:
            _, status = os.waitpid(child, 0)
            if status:
                file.write_text(json.dumps({"error": f"MNN crashed with signal {os.WTERMSIG(status)}"}))
        modes[str(mode)] = json.loads(file.read_text())
    return {"modes": modes}


def profile(job: dict[str, Any]) -> dict[str, Any]:
    """[name, kind, seconds] of each operator, the median over the runs; the measurement adds some microseconds each."""
    import statistics

    session = Session(job, job["model"])
    session.feed(next(iter(batches(job))))
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
        session.run_with_callbacks(before, after)
    return {"ops": [[name, kind, statistics.median(times)] for (name, kind), times in spans.items()]}
