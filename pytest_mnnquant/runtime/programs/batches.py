"""The inputs of a job, batch by batch, and the job's progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def report_progress(done: int, total: int, unit: str) -> None:
    """Report the job's progress to the process that waits for it."""
    if total > 1:
        Path("progress").write_text(f"{done} {total} {unit}", encoding="ascii")


def batches(job: dict[str, Any], samples: Any = None) -> Iterator[dict[str, Any]]:
    """Yield the inputs in batches of `job["batch"]` samples; `samples` are the numbers of the samples, None: all."""
    import numpy as np

    arrays = {name: np.load(file, mmap_mode="r") for name, file in job["inputs"].items()}
    count = next(iter(arrays.values())).shape[0] if samples is None else len(samples)
    size = job["batch"]
    for start in range(0, count, size):
        report_progress(start // size, -(-count // size), "batches")
        taken = slice(start, start + size) if samples is None else samples[start : start + size]
        yield {name: np.ascontiguousarray(array[taken]) for name, array in arrays.items()}
