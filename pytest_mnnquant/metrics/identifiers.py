"""Integer outputs: class numbers of pixels, token ids, indices. Each value is compared by itself.

Most elements of such an output hold one value: the background, the blank of CTC, the padding. They are equal in any
model, so the share of equal elements says little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import is_true_of_all, sample_blocks, values_at

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
#: Whole numbers with this many different values may be quantities, such as grey levels or counts.
_MANY: Final = 32
#: Quantities that differ mostly differ by at most this much; class numbers and tokens that differ are arbitrary.
_NEAR: Final = 2
_MOSTLY: Final = 0.9
#: Differences of quantities are at most this share of those between unrelated elements.
_SMALL: Final = 1 / 6
#: Noise changes all values of a quantity alike: the values of wrong elements are distributed as all values are, up to
#: this total variation distance. Class numbers are confused in certain pairs.
_ALIKE: Final = 0.3
#: Outputs with two axes of at least this size are maps, whose wrong classes may all be neighbours.
_MAP: Final = 8
_ELEMENTS: Final = 100_000
#: More values than this can't be compared one by one.
_MOST: Final = 4096


@dataclass(frozen=True, slots=True)
class ValueAgreement:
    """One value of the reference: how many elements hold it there (`expected`), in the output, and in both.

    `samples` of the reference hold it.
    """

    value: int
    samples: int
    expected: int
    actual: int
    both: int

    @property
    def recall(self) -> float:
        """The share of the reference's elements that the output has too, in [0, 1]."""
        return self.both / self.expected

    @property
    def iou(self) -> float:
        """Intersection over union of the elements that hold the value, in [0, 1]."""
        return self.both / (self.expected + self.actual - self.both)


@dataclass(frozen=True)
class IdentifierAgreement:
    """The agreement of all values of the reference, without the one that most elements hold (`common`).

    `unions` and `intersections` have shape [samples]: over the elements of a sample that are not `common` in one of the
    outputs, their number, and the number of equal ones. An element that is wrong in both counts in two unions.
    """

    values: tuple[ValueAgreement, ...]
    common: int | None
    unions: npt.NDArray[np.int64]
    intersections: npt.NDArray[np.int64]

    @property
    def iou(self) -> float:
        """Intersection over union of all values except the common one, in [0, 1]; 1 if there are none."""
        union = int(self.unions.sum())
        return int(self.intersections.sum()) / union if union else 1.0


def are_identifiers(reference: Array, output: Array) -> bool:
    """Whether two outputs hold identifiers: integers, or floats that are all whole numbers, and not quantities.

    Operators such as ArgMax give integers, which models often cast to float.
    """
    if not (_is_whole(reference) and _is_whole(output)):
        return False
    values = _values_of(reference)
    if len(values) > _MOST or (reference.dtype.kind == "f" and not 1 < len(values) <= _MANY):
        return False
    wrong, near, small = _differences(reference, output, _small_difference(reference))
    if not wrong:
        return True
    if len(values) >= _MANY and near >= _MOSTLY * wrong:
        return False
    return small < _MOSTLY * wrong or not _is_noise(reference, output, values)


def _values_of(array: Array) -> Array:
    """The different values in an array, sorted; of too many to compare, only some."""
    values = np.empty(0, array.dtype)
    for _, (block,) in sample_blocks(array):
        values = np.union1d(values, block)
        if len(values) > _MOST:
            break
    return values


def _differences(reference: Array, output: Array, small: float) -> tuple[int, int, int]:
    """How many elements differ; how many of those by at most `_NEAR`; and how many by at most `small`."""
    counts = np.zeros(3, np.int64)
    for _, (ref, out) in sample_blocks(reference, output):
        differences = np.abs(ref.astype(np.float64) - out)[ref != out]
        counts += np.array([len(differences), (differences <= _NEAR).sum(), (differences <= small).sum()])
    wrong, near, close = counts.tolist()
    return wrong, near, close


def _small_difference(reference: Array) -> float:
    """The largest difference that is small against the typical one between unrelated elements."""
    part = values_at(reference, 1 + reference.size // _ELEMENTS).astype(np.float64)
    differences = np.abs(part - np.random.default_rng(0).permutation(part))
    return float(np.median(differences[differences > 0])) * _SMALL if differences.any() else 0.0


def _is_noise(reference: Array, output: Array, values: Array) -> bool:
    """Whether all values of an output, which is not a map, differ alike; `values` are all of the reference."""
    if sum(size >= _MAP for size in reference.shape[1:]) > 1:
        return False
    counts = np.zeros((2, len(values)), np.int64)
    for _, (ref, out) in sample_blocks(reference, output):
        places = np.searchsorted(values, ref)
        counts += [np.bincount(of.reshape(-1), minlength=len(values)) for of in (places, places[ref != out])]
    shares, shares_of_wrong = counts / counts.sum(1, keepdims=True)
    return float(np.abs(shares - shares_of_wrong).sum()) / 2 <= _ALIKE


def _is_whole(array: Array) -> bool:
    if array.dtype.kind in "iub":
        return True
    if array.dtype.kind != "f":
        return False
    bound = 2.0 ** np.finfo(array.dtype).nmant  # From here on, each float is a whole number.
    return is_true_of_all(lambda block: (np.abs(block) < bound) & (block == np.rint(block)), array)


def compare_identifiers(reference: Array, output: Array) -> IdentifierAgreement:
    """Compare identifiers of equal shape [samples, ...] value by value.

    The most frequent value is set apart if it fills more than half of the elements and each sample holds several.
    """
    values = np.array(sorted({int(value) for _, (ref,) in sample_blocks(reference) for value in np.unique(ref)}))
    counts = sum(_count(values, ref, out) for ref, out in _whole_blocks(reference, output))
    expected = np.asarray(counts)[1]
    is_filled = reference[0].size > 1 and 2 * expected.max() > reference.size
    common = int(values[expected.argmax()]) if is_filled else None
    pairs = [_overlaps(ref, out, common) for ref, out in _whole_blocks(reference, output)]
    intersections, unions = (np.concatenate(column) for column in zip(*pairs, strict=True))
    rows = zip(values.tolist(), *np.asarray(counts).tolist(), strict=True)
    return IdentifierAgreement(
        values=tuple(ValueAgreement(*row) for row in rows if row[0] != common),
        common=common,
        unions=unions,
        intersections=intersections,
    )


def _whole_blocks(reference: Array, output: Array) -> Iterator[tuple[Counts, Counts]]:
    """The blocks of samples of both as integers, shape [samples, elements]."""
    for _, pair in sample_blocks(reference, output):
        ref, out = (block.reshape(len(block), -1).astype(np.int64) for block in pair)
        yield ref, out


def _overlaps(ref: Counts, out: Counts, common: int | None) -> tuple[Counts, Counts]:
    """The intersections and the unions of a block of samples; see `IdentifierAgreement`."""
    one, other = (np.ones_like(array, bool) if common is None else array != common for array in (ref, out))
    intersections = ((ref == out) & one).sum(1)
    return intersections, one.sum(1) + other.sum(1) - intersections


def _count(values: Counts, ref: Counts, out: Counts) -> Counts:
    """For each of the sorted values: samples of the reference, its elements, the output's, and both; [4, values]."""
    places = np.searchsorted(values, ref)
    others = np.minimum(np.searchsorted(values, out), len(values) - 1)
    of_samples = np.unique(np.arange(len(ref))[:, None] * len(values) + places) % len(values)
    counted = (of_samples, places.reshape(-1), others[values[others] == out], places[ref == out])
    return np.array([np.bincount(each, minlength=len(values)) for each in counted], np.int64)
