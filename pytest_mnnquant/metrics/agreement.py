"""How close a model's outputs are to a reference's. The first axis of all arrays counts samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import (
    blocks,
    bounds_of,
    count_true,
    energies,
    is_true_of_all,
    mapped,
    mean_sample,
    sample_blocks,
)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: The largest error, as a share of an output's range, that counts as float rounding. Rounding stays near 1e-6, but MNN
#: computes exact GELU by its tanh form, with errors of up to 5e-4 per operator that add up over a transformer. A wrong
#: operator is off by far more than 1 %.
SAME: Final = 1e-2
# In sparse outputs behind a sigmoid or softmax, these errors show at single elements: in the maps and texts of
# PP-OCRv6, which has 13 GELU, up to 1.6 %, with a mean error of at most 0.021 %. Both are shares of the range.
_SAME_AT_SINGLE, _SAME_ON_AVERAGE = 3e-2, 2.5e-4
#: An output whose range is at most this is a constant with rounding noise, and can't be judged.
SILENT: Final = 1e-6
_SAME_INTEGERS: Final = 0.98
# An output this much smaller than usual (root mean square over samples) has a direction made of rounding noise.
_QUIET: Final = 0.1


@dataclass(frozen=True, slots=True)
class Agreement:
    """Metrics of one output compared with the reference's. For integers, `equal` is the share of equal values.

    `sqnr_db`: signal to quantization noise, 10 log10(sum ref^2 / sum (ref - out)^2), infinite if equal.
    `centred_sqnr_db`: the same with the reference's mean over samples subtracted from both, so that a constant part of
    the output does not count. `cosine`: mean over samples, in [-1, 1]; None if samples have a single element (it would
    always be 1); samples below a tenth of the usual norm are noise and do not count.
    `max_error` and `mean_error`: largest and mean absolute difference; `range`: largest minus smallest reference value,
    in the same unit. `top1`: share of samples with the same arg max, in [0, 1]; None unless samples are vectors of 2 or
    more, and if all samples of the reference have the same one: agreement on a constant means nothing.
    `top5`: share of the reference's five largest elements among the output's five; None below ten elements.
    """

    samples: int
    sqnr_db: float
    centred_sqnr_db: float
    cosine: float | None
    max_error: float
    range: float
    top1: float | None
    equal: float | None = None
    mean_error: float = 0.0
    top5: float | None = None

    @property
    def relative_error(self) -> float:
        """Largest error as a share of the reference's range."""
        return self.max_error / self.range if self.range > 0 else (0.0 if self.max_error == 0 else math.inf)


def agreement(reference: Array, output: Array) -> Agreement:
    """Compare two outputs of equal shape [samples, ...]. Raises `ValueError` for other shapes, or without samples.

    If either has NaN or infinity, every metric has its worst value.
    """
    if reference.shape != output.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {output.shape}")
    if reference.size == 0:
        raise ValueError("nothing to compare: no samples")
    ref, out = (array.reshape(len(array), -1) for array in (reference, output))
    elements = ref.shape[1]
    if not (_is_finite(ref) and _is_finite(out)):
        lost = 0.0 if reference.ndim == 2 and elements > 1 else None
        cosine = -1.0 if elements > 1 else None
        return Agreement(len(ref), -math.inf, -math.inf, cosine, math.inf, 0.0, lost, mean_error=math.inf)
    signal, noise = energies(ref, out)
    centred, _ = energies(ref, out, mean_sample(ref))
    largest, total = _errors(ref, out)
    low, high = bounds_of(ref)
    integers = reference.dtype.kind in "iub"
    classes = reference.ndim == 2 and elements > 1 and not integers
    return Agreement(
        samples=len(ref),
        sqnr_db=_decibels(signal, noise),
        centred_sqnr_db=_decibels(centred, noise),
        cosine=float(cosines(ref, out).mean()) if elements > 1 and not integers else None,
        max_error=largest,
        mean_error=total / ref.size,
        range=high - low,
        top1=float(same_maximum(ref, out).mean()) if classes and not _is_constant(mapped(_best, ref)) else None,
        top5=_same_largest(ref, out, 5) if classes and elements >= 10 else None,
        equal=count_true(np.equal, reference, output) / reference.size if integers else None,
    )


def _is_finite(values: Array) -> bool:
    return values.dtype.kind in "iub" or is_true_of_all(np.isfinite, values)


def _errors(ref: Array, out: Array) -> tuple[float, float]:
    """The largest absolute difference, and the sum of all."""
    largest = total = 0.0
    for _, (first, second) in blocks(ref, out):
        errors = np.abs(first - second)
        largest, total = max(largest, float(errors.max())), total + float(errors.sum())
    return largest, total


def same_maximum(ref: Array, out: Array) -> npt.NDArray[np.bool_]:
    """Whether both have the same arg max, for each sample; both have shape [samples, classes]."""
    return np.concatenate([first.argmax(1) == second.argmax(1) for _, (first, second) in sample_blocks(ref, out)])


def _best(rows: Array) -> Array:
    return np.asarray(rows.argmax(1))


def _is_constant(values: Array) -> bool:
    return len(values) > 1 and bool((values == values[0]).all())


def _same_largest(ref: Array, out: Array, count: int) -> float:
    same = 0
    for _, pair in blocks(ref, out):
        expected, actual = (np.argpartition(-array, count - 1, axis=1)[:, :count] for array in pair)
        same += int((expected[:, :, None] == actual[:, None, :]).any(2).sum())
    return same / (len(ref) * count)


def is_same(item: Agreement) -> bool:
    """Whether an output agrees up to float rounding, which may flip an integer if two classes are nearly equal."""
    if item.equal is not None:
        return item.equal >= _SAME_INTEGERS
    if item.relative_error <= SAME or item.max_error <= SILENT:
        return True
    return item.relative_error <= _SAME_AT_SINGLE and item.mean_error <= _SAME_ON_AVERAGE * item.range


def sqnr_db(reference: Array, output: Array) -> float:
    """Signal to quantization noise in dB; infinite if equal, -infinite if a reference of zeros is missed."""
    return _decibels(*energies(reference, output)) if reference.size else math.inf


def _decibels(signals: Floats, noises: Floats) -> float:
    signal, noise = float(signals.sum()), float(noises.sum())
    if noise == 0:
        return math.inf
    if signal == 0 or not math.isfinite(noise):
        return -math.inf
    return 10 * (math.log10(signal) - math.log10(noise))


def accuracy(output: Array, labels: Array) -> float:
    """Share of samples whose class is the label, in [0, 1].

    `output` has shape [samples, classes] (the class is its arg max), or holds the classes themselves as integers.
    """
    flat = output.reshape(len(output), -1)
    classes = flat[:, 0] if output.dtype.kind in "iu" else flat.argmax(1)
    return float((classes == labels.reshape(-1)).mean())


def cosines(ref: Array, out: Array) -> Floats:
    """The cosine of each sample that counts (see `Agreement`); both have shape [samples, ...]."""
    expected, actual, products = (np.empty(len(ref)) for _ in range(3))
    for chosen, (first, second) in blocks(ref, out):
        expected[chosen], actual[chosen] = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
        products[chosen] = (first * second).sum(1)
    usual = float(np.sqrt(np.square(expected).mean()))
    if usual == 0:
        return np.asarray(actual == 0, np.float64)
    counts = expected >= _QUIET * usual
    lengths = np.maximum(expected[counts] * actual[counts], np.finfo(np.float64).tiny)
    return np.asarray(products[counts] / lengths)
