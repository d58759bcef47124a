"""Limits on outputs of class numbers, tokens and indices, which labels do not judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.limits import CONFIDENCE, Criteria, Demand, unbounded, verdict
from pytest_mnnquant.metrics.blocks import count_true, sample_blocks
from pytest_mnnquant.metrics.identifiers import IdentifierAgreement, ValueAgreement
from pytest_mnnquant.statistics import intervals
from pytest_mnnquant.statistics.intervals import Estimate

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
#: The required share of equal elements: quantization may flip elements with two close scores.
_MIN_EQUAL: Final = 0.95
#: Fewer elements than this say too little about a value.
_FEWEST: Final = 50
#: A value in fewer samples than this (unless all samples hold it), or of a smaller share of the elements that are
#: compared, is not judged by itself: a few borders of one object decide its intersection over union.
_FEWEST_SAMPLES: Final = 8
_LEAST_SHARE: Final = 0.005
#: The limit for a single value is lower than that for all of them, since close scores may concentrate in one value.
_ONE_VALUE: Final = 0.25
_LISTED: Final = 3


def identifier_demands(
    reference: Array, output: Array, compared: IdentifierAgreement, criteria: Criteria, what: str = "integers"
) -> Iterator[Demand]:
    """What is required of identifiers of shape [samples, ...]: equal elements, and each value by itself."""
    equal = intervals.share(count_true(np.equal, reference, output), reference.size, CONFIDENCE)
    text = f"{equal.value:.1%} of its {what} equal the float model's, required {_MIN_EQUAL:.0%}"
    yield Demand(text, verdict(equal, _MIN_EQUAL, at_least=True, strict=criteria.strict))
    least = criteria.usual.iou
    if sum(value.expected for value in compared.values) >= _FEWEST:
        text = f"the intersection over union of its values is {compared.iou:.2f}, required {least:g}"
        text += _details(compared)
        overlap = overlap_of(compared.intersections, compared.unions)
        yield Demand(text, verdict(overlap, least, at_least=True, strict=criteria.strict))
    if judged := _judged(compared):
        worst = judged[0]
        value = overlap_of(*_of_samples(worst.value, reference, output))
        text = f"value {worst.value} has an intersection over union of {worst.iou:.2f}, required {least - _ONE_VALUE:g}"
        yield Demand(text, verdict(value, least - _ONE_VALUE, at_least=True, strict=criteria.strict))


def _judged(compared: IdentifierAgreement) -> list[ValueAgreement]:
    """The values that are frequent enough to be judged, the worst first."""
    fewest = max(_FEWEST, _LEAST_SHARE * sum(value.expected for value in compared.values))
    samples = min(_FEWEST_SAMPLES, len(compared.unions))
    judged = (value for value in compared.values if value.expected >= fewest and value.samples >= samples)
    return sorted(judged, key=lambda value: value.iou)


def _of_samples(value: int, reference: Array, output: Array) -> tuple[Counts, Counts]:
    """The intersection and the union of the elements that hold a value, both with shape [samples]."""
    counts = []
    for _, pair in sample_blocks(reference, output):
        expected, actual = ((block == value).reshape(len(block), -1) for block in pair)
        counts.append(((expected & actual).sum(1), (expected | actual).sum(1)))
    intersections, unions = (np.concatenate(column) for column in zip(*counts, strict=True))
    return intersections, unions


def _details(compared: IdentifierAgreement) -> str:
    """The worst values, and the one that is set apart."""
    common = "" if compared.common is None else f"without the most frequent value {compared.common}; "
    worst = _judged(compared)[:_LISTED]
    texts = (f"value {value.value}: {value.iou:.2f}, recall {value.recall:.2f}" for value in worst)
    details = (common + "; ".join(texts)).rstrip("; ")
    return f" ({details})" if details else ""


def overlap_of(intersections: Counts, unions: Counts) -> Estimate:
    """The intersection over union of elements, both counted in each sample."""

    def iou(chosen: Counts) -> float:
        union = int(unions[chosen].sum())
        return int(intersections[chosen].sum()) / union if union else 1.0

    if len(unions) == 1:
        return unbounded(iou(np.arange(1)), 1)
    return intervals.resampled(iou, len(unions), confidence=CONFIDENCE)
