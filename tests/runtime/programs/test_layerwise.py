"""The look into layers ends in its time, with the samples that it has."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.runtime.programs.layerwise import batches_within


@pytest.mark.parametrize(("end", "expected"), [(math.inf, [[4, 0], [2, 1], [3]]), (-math.inf, [[4, 0]])])
def test_at_least_one_batch_and_no_more_than_the_time_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: float, expected: list[list[int]]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("input.npy", np.arange(5, dtype=np.float32))
    job = {"inputs": {"x": "input.npy"}, "batch": 2}
    taken = [batch["x"].tolist() for batch in batches_within(job, np.array([4, 0, 2, 1, 3]), end)]
    assert taken == expected
