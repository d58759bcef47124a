"""Evaluation samples that calibration has seen: the accuracy on them does not show what other samples lose."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.metrics.blocks import sample_blocks

Array = npt.NDArray[Any]
#: The share of repeated evaluation samples from which their accuracy is not that of other samples.
_MOST: Final = 0.5
#: Samples of fewer numbers, which may be equal by chance, must all be repeated.
_ELEMENTS: Final = 32


def judge_overlap(calibration: Dataset, evaluation: Dataset) -> list[Finding]:
    """A finding if most evaluation samples are calibration samples too; labels do not count."""
    if calibration.inputs.keys() != evaluation.inputs.keys():
        return []
    seen = set(_rows(calibration))
    rows = _rows(evaluation)
    repeated = sum(row in seen for row in rows)
    elements = sum(int(array[0].size) for array in evaluation.inputs.values())
    required = _MOST * len(rows) if elements >= _ELEMENTS else max(len(rows), _ELEMENTS)
    is_discrete = len(set(rows)) < max(2, _MOST * len(rows))  # One-hot vectors, flags, still pictures of a film.
    if is_discrete or repeated < required:
        return []
    share = "all" if repeated == len(rows) else f"{repeated:,} of"
    message = f"{share} {len(rows):,} evaluation samples are calibration samples too"
    return [Finding("MNQ523", message, fix="evaluate on samples that calibration has not seen (--mnn-evaluation)")]


def _rows(data: Dataset) -> list[int]:
    """A hash of each sample, equal for equal values of all types of floats."""
    hashes = []
    for _, parts in sample_blocks(*data.inputs.values()):
        columns = [[row.tobytes() for row in _plain(block)] for block in parts]
        hashes += [hash(row) for row in zip(*columns, strict=True)]
    return hashes


def _plain(array: Array) -> Array:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
