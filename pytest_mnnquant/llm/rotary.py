"""Tables and frequencies of rotary position embeddings (RoPE), recognized by their values.

Frequency j of d / 2 is base^(-2 j / d). Older exporters store the frequencies, newer ones tables of cos(position *
frequency) and sin(position * frequency), one row per position.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.storage import Floats

_TOLERANCE: Final = 1e-3
#: Rows that are looked at.
_ROWS: Final = 8


def frequencies(head_size: int, base: float) -> Floats:
    """The frequencies of a head, shape [head_size / 2]."""
    exponents = np.arange(0, head_size, 2, dtype=np.float64) / head_size
    return (1.0 / base**exponents).astype(np.float32)


def is_rotary_table(values: Floats) -> bool:
    """Whether a matrix [positions, frequencies] holds cosines or sines of multiples of its second row's angles."""
    return values.ndim == 2 and table_frequencies(values) is not None


def table_frequencies(values: Floats) -> Floats | None:
    """The frequencies of a table of cosines or sines in [0, pi], shape [columns]; None if it is not such a table."""
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values[:_ROWS]).all():
        return None
    rows = values[:_ROWS].astype(np.float64)
    if np.allclose(rows[0], 1.0, atol=_TOLERANCE):
        angles = np.arccos(np.clip(rows[1], -1.0, 1.0))
        expected = np.cos(np.arange(len(rows))[:, None] * angles)
    elif np.allclose(rows[0], 0.0, atol=_TOLERANCE) and np.abs(rows[1]).max() <= 1.0:
        angles = _angles_of_sines(rows[1], rows[2]) if len(rows) > 2 else np.arcsin(rows[1])
        expected = np.sin(np.arange(len(rows))[:, None] * angles)
    else:
        return None
    # Cosines of small angles lose half of their digits.
    return angles.astype(np.float32) if np.allclose(rows, expected, atol=10 * _TOLERANCE) else None


def _angles_of_sines(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The angles whose sines these are, and those of twice the angles: sin 2a = 2 sin a cos a."""
    doubled = np.where(first == 0, 1.0, 2 * first)
    angles: npt.NDArray[np.float64] = np.arctan2(first, np.where(first == 0, 1.0, second / doubled))
    return angles
