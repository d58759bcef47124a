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

Array = npt.NDArray[Any]
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
    values = np.unique(reference)
    if len(values) > _MOST or (reference.dtype.kind == "f" and not 1 < len(values) <= _MANY):
        return False
    differences = np.abs(reference.astype(np.float64) - output)[reference != output]
    if not len(differences):
        return True
    if len(values) >= _MANY and float((differences <= _NEAR).mean()) >= _MOSTLY:
        return False
    return float((differences <= _small_difference(reference)).mean()) < _MOSTLY or not _is_noise(reference, output)


def _small_difference(reference: Array) -> float:
    """The largest difference that is small against the typical one between unrelated elements."""
    part = reference.reshape(-1)[:: 1 + reference.size // _ELEMENTS].astype(np.float64)
    differences = np.abs(part - np.random.default_rng(0).permutation(part))
    return float(np.median(differences[differences > 0])) * _SMALL if differences.any() else 0.0


def _is_noise(reference: Array, output: Array) -> bool:
    """Whether all values of an output, which is not a map, differ alike."""
    if sum(size >= _MAP for size in reference.shape[1:]) > 1:
        return False
    values, places = np.unique(reference.reshape(-1), return_inverse=True)
    wrong = places[(reference != output).reshape(-1)]
    shares, shares_of_wrong = (np.bincount(of, minlength=len(values)) / len(of) for of in (places, wrong))
    return float(np.abs(shares - shares_of_wrong).sum()) / 2 <= _ALIKE


def _is_whole(array: Array) -> bool:
    if array.dtype.kind in "iub":
        return True
    return array.dtype.kind == "f" and bool(np.isfinite(array).all() and (array == np.rint(array)).all())


def compare_identifiers(reference: Array, output: Array) -> IdentifierAgreement:
    """Compare identifiers of equal shape [samples, ...] value by value.

    The most frequent value is set apart if it fills more than half of the elements and each sample holds several.
    """
    ref, out = (array.reshape(len(array), -1).astype(np.int64) for array in (reference, output))
    values, places = np.unique(ref.reshape(-1), return_inverse=True)
    counts = np.bincount(places)
    common = int(values[counts.argmax()]) if ref.shape[1] > 1 and 2 * counts.max() > ref.size else None
    same = ref == out
    unlike_common = (ref != common) if common is not None else np.ones_like(same)
    output_unlike_common = (out != common) if common is not None else np.ones_like(same)
    intersections = (same & unlike_common).sum(1)
    unions = unlike_common.sum(1) + output_unlike_common.sum(1) - intersections
    return IdentifierAgreement(
        values=tuple(value for value in _by_value(values, places, ref, out) if value.value != common),
        common=common,
        unions=unions.astype(np.int64),
        intersections=intersections.astype(np.int64),
    )


def _by_value(values: Array, places: Array, ref: Array, out: Array) -> Iterator[ValueAgreement]:
    """The agreement of each value; `values` are sorted, `places` has shape [elements] and finds `ref` in them."""
    others = np.minimum(np.searchsorted(values, out.reshape(-1)), len(values) - 1)
    is_known, is_equal = values[others] == out.reshape(-1), (ref == out).reshape(-1)
    rows = np.repeat(np.arange(len(ref)), ref.shape[1])
    pairs = np.unique(rows * len(values) + places) % len(values)
    counts = (np.bincount(of, minlength=len(values)) for of in (pairs, places, others[is_known], places[is_equal]))
    for value, samples, expected, actual, both in zip(values, *counts, strict=True):
        yield ValueAgreement(int(value), int(samples), int(expected), int(actual), int(both))
