"""Would other samples, or the same in another order, have given the same ranges?"""

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

# What MNN's documentation advises.
LEAST: Final = 100
_MOST: Final = 1000
# Share of its width by which a range may move in the worst of ten draws, in a network's worst tensor and in the middle
# one. Measured on 15 networks with 320 samples: up to 0.19 and 0.05; moving averages, which one batch decides in the
# main, 0.29 and 0.1.
_MOVES: Final = (0.3, 0.1)
_AVERAGE_MOVES: Final = (0.5, 0.2)
_AVERAGE: Final = re.compile(r"average([\d.]+)")
_QUANTILE: Final = 0.9
_DRAWS: Final = 200
# Measured: in honest sets the order of batches moves a moving average by 1.35 at most; a blank first batch by 5.4.
_MOVED: Final = 2.0
_WIDENED: Final = 4.0
Batches = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Movement:
    """By what share of its width the range of `tensor`, the worst, and of the middle one move when drawn again."""

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
    """Findings on too few samples, and on enough that still do not settle a range."""
    if samples < LEAST:
        message = f"calibrated on {samples} sample{'s' if samples != 1 else ''}; {LEAST} to {_MOST:,} are advised"
        if moved is not None:
            message += f". Drawn again, ranges move by up to {_figures(moved)}"
        fix = f"give {LEAST - samples} more samples like those that the model will meet (--mnn-calibration)"
        return [Finding("MNQ510", message, fix=fix)]
    worst, middle = _MOVES if _momentum(observer) is None else _AVERAGE_MOVES
    if moved is None or (moved.worst <= worst and moved.middle <= middle):
        return []
    message = f"drawn again, ranges move by up to {_figures(moved)}; {worst:.0%} and {middle:.0%} allowed"
    more = min(samples, _MOST - samples)
    fix = f"give {more} more samples, or" if more > 0 else "look for odd samples, or"
    return [
        Finding(
            "MNQ511",
            message,
            cause=Cause("few-samples-set-range", "a few of the samples alone reach the ends of the ranges"),
            fix=f"{fix} take a range that single values don't decide (--mnn-recipe=int8-percentile)",
        )
    ]


def judge_order(batches: Mapping[str, Batches], observer: str) -> list[Finding]:
    """A moving average must not hang on which batch came first."""
    momentum = _momentum(observer)
    ratios = {} if momentum is None else {name: _reordered(rows, momentum) for name, rows in batches.items()}
    if momentum is None or not ratios:
        return []
    count = len(next(iter(batches.values())))
    first = _weights(count, momentum)[0]
    text = f"a moving average that keeps {momentum:g} gives the first of {count} batches a weight of {first:.0%}"
    cause = Cause("moving-average-keeps-first-batch", text)
    fix = "shuffle the samples, leave out blank ones, or take min-max over all batches (--mnn-recipe=int8)"
    narrow, wide = max(ratios, key=lambda name: ratios[name]), min(ratios, key=lambda name: ratios[name])
    if ratios[narrow] >= _MOVED:
        many = sum(ratio >= _MOVED for ratio in ratios.values())
        message = (
            f"tensor {narrow!r}: its range would be {ratios[narrow]:.1f} times as wide with the batches in another "
            f"order; so for {many} of {len(ratios)} tensors (less than {_MOVED:g} allowed)"
        )
        return [Finding("MNQ512", message, cause=cause, fix=fix)]
    if ratios[wide] <= 1 / _WIDENED:
        message = f"tensor {wide!r}: its range is {1 / ratios[wide]:.1f} times as wide as with batches in another order"
        return [Finding("MNQ512", message, cause=cause, fix=fix, as_warning=True)]
    return []


def spans(batches: Mapping[str, Batches]) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of each tensor over all batches."""
    return {name: (float(rows[:, 0].min()), float(rows[:, 1].max())) for name, rows in batches.items()}


def with_movement(metrics: CalibrationMetrics, moved: Movement | None) -> CalibrationMetrics:
    """The metrics with how far ranges move; unchanged when that is not known."""
    if moved is None:
        return metrics
    return dataclasses.replace(
        metrics,
        range_movement=moved.worst,
        range_movement_tensor=moved.tensor,
        range_movement_middle=moved.middle,
    )


def _figures(moved: Movement) -> str:
    return f"{moved.worst:.0%} of their width (tensor {moved.tensor!r}), {moved.middle:.0%} in the middle"


def _momentum(observer: str) -> float | None:
    """What a moving average keeps of its past; None for other observers. `average0.99` -> 0.99."""
    match = _AVERAGE.fullmatch(observer)
    return float(match[1]) if match else None


def _with_zero(rows: Batches) -> Batches:
    """Codes must hold 0, so every range is widened to it."""
    return np.column_stack([np.minimum(rows[:, 0], 0), np.maximum(rows[:, 1], 0)])


def _weights(count: int, momentum: float) -> npt.NDArray[np.float64]:
    """What each batch counts for in a moving average that the first batch seeds."""
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
    else:  # Other observers leave single values out, so the mean of the batches' ends stands for them.
        weights = np.full(count, 1 / count) if momentum is None else _weights(count, momentum)
        low, high = weights @ drawn[..., 0].T, weights @ drawn[..., 1].T
        least, most = (weights @ rows).tolist()
    if most <= least:
        return 0.0
    moved = np.maximum(np.abs(low - least), np.abs(high - most)) / (most - least)
    return float(np.quantile(moved, _QUANTILE))


def _reordered(rows: Batches, momentum: float) -> float:
    """How many times as wide the range is with the batches in another order, in the middle of many orders."""
    rows, weights, random = _with_zero(rows), _weights(len(rows), momentum), np.random.default_rng(0)
    widths = rows[:, 1] - rows[:, 0]
    center = float(weights @ widths)
    others = np.median([weights @ random.permutation(widths) for _ in range(_DRAWS)])
    return float(others / center) if center > 0 else (np.inf if others > 0 else 1.0)
