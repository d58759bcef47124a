"""Whether other samples, or another order of the samples, would give the same ranges."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.run_metrics import CalibrationMetrics

# The number of samples that MNN's documentation recommends.
LEAST: Final = 100
_MOST: Final = 1000
# Share of its width by which a range may move in the worst of ten draws, in a network's worst and median tensor.
# Measured on 15 networks with 320 samples: up to 0.19 and 0.05; for moving averages, which depend mostly on one batch,
# 0.29 and 0.1.
_MOVES: Final = (0.3, 0.1)
_AVERAGE_MOVES: Final = (0.5, 0.2)
_AVERAGE: Final = re.compile(r"average([\d.]+)")
_QUANTILE: Final = 0.9
_DRAWS: Final = 200
# Measured: in valid sets the order of batches changes a moving average by a factor of at most 1.35; a blank first
# batch changes it by 5.4.
_MOVED: Final = 2.0
_WIDENED: Final = 4.0
Batches = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Movement:
    """By what share of its width a range moves if the batches are resampled: `worst` (of `tensor`) and the median."""

    tensor: str
    worst: float
    middle: float


def movement(batches: Mapping[str, Batches], observer: str) -> Movement | None:
    """Bootstrap over the batches (or samples), whose ranges have shape [batches, 2]; None for less than two."""
    shares = {name: _share(rows, observer) for name, rows in batches.items() if len(rows) > 1}
    if not shares:
        return None
    tensor = max(shares, key=lambda name: shares[name])
    return Movement(tensor, shares[tensor], float(np.median(list(shares.values()))))


def judge_number(samples: int, moved: Movement | None, observer: str) -> list[Finding]:
    """Findings on too few samples, and on enough samples whose ranges are still unstable."""
    if samples < LEAST:
        message = f"calibrated on {samples} sample{'s' if samples != 1 else ''}; recommended: {LEAST} to {_MOST:,}"
        if moved is not None:
            message += f". Resampling the calibration batches moves ranges by up to {_figures(moved)}"
        fix = f"add {LEAST - samples} representative samples (--mnn-calibration)"
        return [Finding("MNQ510", message, fix=fix)]
    worst, middle = _MOVES if _momentum(observer) is None else _AVERAGE_MOVES
    if moved is None or (moved.worst <= worst and moved.middle <= middle):
        return []
    message = f"resampling the calibration batches moves ranges by up to {_figures(moved)}; "
    message += f"allowed: {worst:.0%}, median {middle:.0%}"
    more = min(samples, _MOST - samples)
    fix = f"add {more} representative samples" if more > 0 else "remove outliers from the samples"
    return [
        Finding(
            "MNQ511",
            message,
            cause=Cause("few-samples-set-range", "only a few samples reach the ends of the ranges"),
            fix=f"{fix}, or use a range that ignores single values (--mnn-recipe=int8-percentile)",
        )
    ]


def judge_order(batches: Mapping[str, Batches], observer: str) -> list[Finding]:
    """A finding if a moving average depends on which batch came first."""
    momentum = _momentum(observer)
    ratios = {} if momentum is None else {name: _reordered(rows, momentum) for name, rows in batches.items()}
    if momentum is None or not ratios:
        return []
    count = len(next(iter(batches.values())))
    first = _weights(count, momentum)[0]
    text = f"a moving average with momentum {momentum:g} gives the first of {count} batches a weight of {first:.0%}"
    cause = Cause("moving-average-keeps-first-batch", text)
    fix = "shuffle the samples, remove blank ones, or use min-max over all batches (--mnn-recipe=int8)"
    narrow, wide = max(ratios, key=lambda name: ratios[name]), min(ratios, key=lambda name: ratios[name])
    if ratios[narrow] >= _MOVED:
        many = sum(ratio >= _MOVED for ratio in ratios.values()) - 1
        message = (
            f"tensor {narrow!r}: another order of the batches makes its range {ratios[narrow]:.1f} times as wide "
            f"(allowed: less than {_MOVED:g})"
        )
        if many:
            message += f"; {many} of {len(ratios) - 1} other tensors are affected too"
        return [Finding("MNQ512", message, cause=cause, fix=fix)]
    if ratios[wide] <= 1 / _WIDENED:
        message = (
            f"tensor {wide!r}: its range is {1 / ratios[wide]:.1f} times as wide as in another order of the batches"
        )
        return [Finding("MNQ512", message, cause=cause, fix=fix, as_warning=True)]
    return []


def spans(batches: Mapping[str, Batches]) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of each tensor over all batches."""
    return {name: (float(rows[:, 0].min()), float(rows[:, 1].max())) for name, rows in batches.items()}


def with_movement(metrics: CalibrationMetrics, moved: Movement | None) -> CalibrationMetrics:
    """The metrics with the movement of ranges; unchanged if that is unknown."""
    if moved is None:
        return metrics
    return dataclasses.replace(
        metrics,
        range_movement=moved.worst,
        range_movement_tensor=moved.tensor,
        range_movement_middle=moved.middle,
    )


def _figures(moved: Movement) -> str:
    return f"{moved.worst:.0%} of their width (tensor {moved.tensor!r}), median {moved.middle:.0%}"


def _momentum(observer: str) -> float | None:
    """The momentum of a moving average; None for other observers. `average0.99` -> 0.99."""
    match = _AVERAGE.fullmatch(observer)
    return float(match[1]) if match else None


def _with_zero(rows: Batches) -> Batches:
    """Codes must hold 0, so every range is widened to it."""
    return np.column_stack([np.minimum(rows[:, 0], 0), np.maximum(rows[:, 1], 0)])


def _weights(count: int, momentum: float) -> npt.NDArray[np.float64]:
    """The weight of each batch in a moving average that starts with the first batch."""
    weights = (1 - momentum) * momentum ** np.arange(count - 1, -1, -1.0)
    weights[0] += momentum**count
    return weights


def _share(rows: Batches, observer: str) -> float:
    rows = _with_zero(rows)
    count, momentum = len(rows), _momentum(observer)
    drawn = rows[np.random.default_rng(0).integers(0, count, (_DRAWS, count))]  # [draws, batches, 2]
    if observer == "minmax":
        low, high = drawn[..., 0].min(1), drawn[..., 1].max(1)
        least, most = float(rows[:, 0].min()), float(rows[:, 1].max())
    else:  # Other observers ignore single values: the mean of the batches' ends represents them.
        weights = np.full(count, 1 / count) if momentum is None else _weights(count, momentum)
        low, high = weights @ drawn[..., 0].T, weights @ drawn[..., 1].T
        least, most = (weights @ rows).tolist()
    if most <= least:
        return 0.0
    moved = np.maximum(np.abs(low - least), np.abs(high - most)) / (most - least)
    return float(np.quantile(moved, _QUANTILE))


def _reordered(rows: Batches, momentum: float) -> float:
    """How many times as wide the range is with the batches in another order: the median of many orders."""
    rows, weights, random = _with_zero(rows), _weights(len(rows), momentum), np.random.default_rng(0)
    widths = rows[:, 1] - rows[:, 0]
    center = float(weights @ widths)
    others = np.median([weights @ random.permutation(widths) for _ in range(_DRAWS)])
    return float(others / center) if center > 0 else (np.inf if others > 0 else 1.0)
