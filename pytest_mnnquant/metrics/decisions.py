"""What an app decides by an output's numbers: the best class of each place, whether a probability is above one half.

A decision stays right although its numbers change, and flips although an output looks alike. Outputs are taken for
scores of classes or for probabilities only if the float model is sure of most decisions, as trained networks are.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import is_true_of_all, mapped, rows_at, sample_blocks, values_at

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: Scores of classes: the usual probability of the best class, and that where it is not the most frequent class.
_SURE: Final = 0.9
_SURE_OF_RARE: Final = 0.6
#: The usual distance of the two best scores / the standard deviation of all: positions and features have less.
_APART: Final = 1.2
#: If the model is sure of the other classes, and at least 4 classes occur, the most frequent one may be a blank.
_FEWEST_WITH_BLANK: Final = 4
#: Each of two classes at least holds this share of the decisions.
_LEAST_SHARE: Final = 0.01
#: Scores of two classes are each other's opposite; two other channels are not.
_OPPOSITE: Final = -0.8
_RGB: Final = 3
#: Probabilities: this share is near 0 or 1, and that many elements are above one half, in as many samples.
_SATURATED, _NEAR = 0.7, 0.05
_FEWEST, _FEWEST_SAMPLES = 50, 8
_ROUNDED: Final = 1e-3
#: Logits: values from 0 to this share of the middle of either sign; at most that share of all may be there. One heap
#: around 0 has 13 % there.
_NEAR_ZERO, _VALLEY = 0.25, 0.06
#: The most values that are looked at to recognise an output.
_VALUES: Final = 4_000_000


class Decision(enum.Enum):
    """The kind of decisions."""

    CLASS = "class"
    THRESHOLD = "threshold"


@dataclass(frozen=True)
class Decisions:
    """The decisions of both models as integers of shape [samples, ...]: numbers of classes, or 1 above one half."""

    kind: Decision
    reference: Array
    output: Array


def find_decisions(reference: Array, output: Array) -> Decisions | None:
    """The decisions by two outputs of equal shape [samples, ...]; None if they are other quantities."""
    if reference.dtype.kind != "f" or reference.ndim < 2:
        return None
    for axis in dict.fromkeys((1, reference.ndim - 1)):
        if _are_scores(reference, axis):
            best = (mapped(partial(_best_class, axis), array) for array in (reference, output))
            return Decisions(Decision.CLASS, *best)
    return threshold_decisions(reference, output) or _logit_decisions(reference, output)


def without_logarithms(reference: Array, output: Array) -> tuple[Array, Array]:
    """Both as probabilities if the reference holds their logarithms: how improbable a class is does not matter."""
    if reference.dtype.kind == "f" and reference.ndim > 1:
        for axis in dict.fromkeys((1, reference.ndim - 1)):
            if reference.shape[axis] > 1 and is_true_of_all(partial(_hold_log_shares, axis), reference):
                return mapped(np.exp, reference), mapped(partial(_softmax, axis), output)
    return reference, output


def _best_class(axis: int, block: Array) -> Array:
    return np.asarray(block.argmax(axis).astype(np.min_scalar_type(block.shape[axis])))


def _hold_log_shares(axis: int, block: Array) -> bool:
    return _are_log_shares(np.moveaxis(block, axis, -1).reshape(-1, block.shape[axis]))


def _softmax(axis: int, block: Array) -> Array:
    odds = np.exp(block - block.max(axis, keepdims=True))
    return np.asarray(odds / odds.sum(axis, keepdims=True))


def threshold_decisions(reference: Array, output: Array) -> Decisions | None:
    """The answers above and below 0.5 of two outputs of equal shape; None unless most are near 0 or 1."""
    return _answers(reference, output, 0.5) if _are_probabilities(reference) else None


def _logit_decisions(reference: Array, output: Array) -> Decisions | None:
    """The signs of two outputs of equal shape, if the first holds logits of probabilities that are mostly sure."""
    if not (_have_a_valley(reference) and _are_probabilities(reference, _sigmoid)):
        return None
    return _answers(reference, output, 0)


def _answers(reference: Array, output: Array, limit: float) -> Decisions:
    """The answers of both: 1 above the limit, 0 below."""
    answers = (mapped(lambda block: (block > limit).astype(np.int8), array) for array in (reference, output))
    return Decisions(Decision.THRESHOLD, *answers)


def _sigmoid(values: Array) -> Array:
    wide = values.astype(np.promote_types(values.dtype, np.float32))  # exp(60) overflows in float16.
    return np.asarray(1 / (1 + np.exp(-np.clip(wide, -60.0, 60.0))))


def _have_a_valley(values: Array) -> bool:
    """Whether few values are near 0, compared with those between the middles of both signs.

    Logits have two heaps; other quantities of both signs, such as a flow or a residual, have one, around 0.
    """
    values = values_at(values, 1 + values.size // _VALUES)
    above, below = values[values > 0], values[values < 0]
    if not above.size or not below.size:
        return False
    low, high = _NEAR_ZERO * float(np.median(below)), _NEAR_ZERO * float(np.median(above))
    return bool(((values >= low) & (values <= high)).mean() <= _VALLEY)


def are_shares(values: Array) -> bool:
    """Whether rows [n, classes] are probabilities that add up to 1."""
    return bool(values.min() >= 0 and np.abs(values.astype(np.float64).sum(1) - 1).max() <= _ROUNDED)


def _are_scores(reference: Array, axis: int) -> bool:
    """Whether an axis counts classes: mostly one score is far above the others, and several classes occur."""
    classes = reference.shape[axis]
    if classes < 2:
        return False
    rows = rows_at(np.moveaxis(reference, axis, -1), 1 + reference.size // _VALUES).astype(np.float64)
    if classes <= _RGB and not _exclude_each_other(rows):
        return False
    best, sure = rows.argmax(1), _best_probability(rows)
    counts = np.bincount(best, minlength=classes)
    if np.sort(counts)[-2] < _LEAST_SHARE * len(rows):
        return False
    rare = best != counts.argmax()
    has_blank = (counts >= _LEAST_SHARE * len(rows)).sum() >= _FEWEST_WITH_BLANK and np.median(sure[rare]) >= _SURE
    blank = int(counts.argmax()) if has_blank else None
    if not (are_shares(rows) or _are_log_shares(rows)) and not _stand_out(rows, best, counts, blank):
        return False
    return bool(np.median(sure) >= _SURE and np.median(sure[rare]) >= _SURE_OF_RARE)


def _are_log_shares(rows: Array) -> bool:
    """Whether rows [n, classes] are logarithms of probabilities that add up to 1."""
    return bool(rows.max() <= _ROUNDED and np.abs(np.exp(rows).sum(1) - 1).max() <= _ROUNDED)


def _stand_out(rows: Floats, best: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], blank: int | None) -> bool:
    """Whether the best of each row is far above the others, which are alike."""
    classes = rows.shape[1]
    two = np.partition(rows, classes - 2, axis=1)[:, -2:]
    if np.median(two[:, 1] - two[:, 0]) < _APART * rows.std():
        return False
    return classes <= _RGB or _losers_are_alike(rows, best, counts, blank)


def _losers_are_alike(
    rows: Floats, best: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], blank: int | None
) -> bool:
    """Whether each class is like the others where it is not the best: a channel that is always large is not a class.

    A class of blanks may be the second everywhere.
    """
    high = np.median(rows) + _APART * rows.std()
    winners = np.flatnonzero(counts >= _LEAST_SHARE * len(rows))
    return all(np.median(rows[best != winner, winner]) < high for winner in winners if winner != blank)


def _exclude_each_other(rows: Floats) -> bool:
    """Whether channels [n, 2 or 3] fall where others rise: colours are bright and dark together."""
    if not rows.std(0).all():
        return False
    alike = np.atleast_2d(np.corrcoef(rows.T))[np.triu_indices(rows.shape[1], 1)].mean()
    return bool(alike <= (_OPPOSITE if rows.shape[1] == 2 else 0))


def _best_probability(rows: Floats) -> Floats:
    """The probability of the best class, of probabilities or logits [n, classes]."""
    if are_shares(rows):
        return np.asarray(rows.max(1))
    return np.asarray(1 / np.exp(rows - rows.max(1, keepdims=True)).sum(1))


def _are_probabilities(reference: Array, transform: Callable[[Array], Array] = np.asarray) -> bool:
    """Whether transformed values from 0 to 1 are mostly near one of both."""
    counts, near = [], 0
    for _, (block,) in sample_blocks(reference):
        values = transform(block)
        if values.min() < -_ROUNDED or values.max() > 1 + _ROUNDED:
            return False
        counts.append((values > 0.5).reshape(len(values), -1).sum(1))
        near += int(np.count_nonzero((values < _NEAR) | (values > 1 - _NEAR)))
    above = np.concatenate(counts)
    if above.sum() < _FEWEST or (above > 0).sum() < min(_FEWEST_SAMPLES, len(reference)):
        return False
    return near >= _SATURATED * reference.size
