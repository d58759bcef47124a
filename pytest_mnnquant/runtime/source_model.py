"""Computes a checkpoint with transformers, in a child process, so that this one loads neither it nor torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pytest_mnnquant.measurements.language_model import Ids, Logits
from pytest_mnnquant.runtime.jobs import FailureKind, Job, NativeFailure, run_job


def compute_logits(checkpoint: Path, ids: Ids, folder: Path, timeout: float, threads: int = 1) -> Logits:
    """Logits of texts [texts, tokens, vocabulary], in a file of `folder`. Raises `NativeFailure`.

    Its kind is `MISSING_PACKAGE` without transformers or torch, `REFUSED` if transformers can't load the checkpoint.
    """
    np.save(folder / "ids.npy", ids)
    arguments = {"model": str(checkpoint.resolve()), "ids": "ids.npy", "threads": threads}
    job = Job("source_logits", f"computing {checkpoint.name} with transformers", timeout, arguments, "transformers")
    run_job(job, folder)
    try:
        logits: Logits = np.load(folder / "computed.npy", mmap_mode="r")
    except (ValueError, OSError):
        raise NativeFailure(FailureKind.BAD_ANSWER, f"{job.what}: unexpected reply") from None
    return logits
