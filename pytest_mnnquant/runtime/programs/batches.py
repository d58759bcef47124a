"""The inputs of a job, batch by batch, and the job's progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .sample_axes import as_batch


def report_progress(done: int, total: int, unit: str) -> None:
    """Report the job's progress to the process that waits for it."""
    if total > 1:
        Path("progress").write_text(f"{done} {total} {unit}", encoding="ascii")


def batches(job: dict[str, Any], samples: Any = None) -> Iterator[dict[str, Any]]:
    """Yield the inputs in batches of `job["batch"]` samples; `samples` are the numbers of the samples, None: all.

    `job["axes"]` gives the axes that count samples; see `measurements.sample_axes`. With `job["fixed"]`, the model
    takes batches of this size only: the last sample fills the last batch.
    """
    import numpy as np

    axes = job.get("axes", {}).get("inputs", {})
    arrays = {name: np.load(file, mmap_mode="r") for name, file in job["inputs"].items()}
    count = next(iter(arrays.values())).shape[0] if samples is None else len(samples)
    size = job["batch"]
    for start in range(0, count, size):
        report_progress(start // size, -(-count // size), "batches")
        taken = slice(start, start + size) if samples is None else samples[start : start + size]
        rows = {name: array[taken] for name, array in arrays.items()}
        if job.get("fixed"):
            rows = {name: np.concatenate([part, part[-1:].repeat(size - len(part), 0)]) for name, part in rows.items()}
        yield {name: as_batch(part, axes.get(name, 0)) for name, part in rows.items()}


def sample_count(job: dict[str, Any]) -> int:
    """The number of samples of the job's inputs."""
    import numpy as np

    return next(len(np.load(file, mmap_mode="r")) for file in job["inputs"].values())
