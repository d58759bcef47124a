"""Limits on outputs of class numbers, tokens and indices, which labels do not judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.limits import CONFIDENCE, Criteria, Demand, unbounded, verdict
from pytest_mnnquant.metrics.identifiers import IdentifierAgreement, ValueAgreement
from pytest_mnnquant.statistics import intervals
from pytest_mnnquant.statistics.intervals import Estimate

Array = npt.NDArray[Any]
#: The required share of equal elements: quantization may flip elements with two close scores.
_MIN_EQUAL: Final = 0.95
#: Fewer elements than this say too little about a value.
_FEWEST: Final = 50
#: The limit for a single value is lower than that for all of them, since close scores may concentrate in one value.
_ONE_VALUE: Final = 0.25
_LISTED: Final = 3


def identifier_demands(
    reference: Array, output: Array, compared: IdentifierAgreement, criteria: Criteria
) -> Iterator[Demand]:
    """What is required of identifiers of shape [samples, ...]: equal elements, and each value by itself."""
    equal = intervals.share(int((reference == output).sum()), reference.size, CONFIDENCE)
    text = f"{equal.value:.1%} of its integers equal the float model's, required {_MIN_EQUAL:.0%}"
    yield Demand(text, verdict(equal, _MIN_EQUAL, at_least=True, strict=criteria.strict))
    least = criteria.usual.iou
    if compared.unions.sum() >= _FEWEST:
        text = f"the intersection over union of its values is {compared.iou:.2f}, required {least:g}"
        text += _details(compared)
        yield Demand(text, verdict(_overlap(compared), least, at_least=True, strict=criteria.strict), varies=True)
    worst = min((value for value in compared.values if value.expected >= _FEWEST), key=_iou, default=None)
    if worst is not None:
        # Elements of one value are not independent samples, so the estimate has no bounds of its own.
        value = Estimate(worst.iou, worst.iou, worst.iou, len(reference), 0.0)
        text = f"value {worst.value} has an intersection over union of {worst.iou:.2f}, required {least - _ONE_VALUE:g}"
        yield Demand(text, verdict(value, least - _ONE_VALUE, at_least=True, strict=criteria.strict), varies=True)


def _iou(value: ValueAgreement) -> float:
    return value.iou


def _details(compared: IdentifierAgreement) -> str:
    """The worst values, and the one that is set apart."""
    common = "" if compared.common is None else f"without the most frequent value {compared.common}; "
    worst = sorted((value for value in compared.values if value.expected >= _FEWEST), key=_iou)[:_LISTED]
    texts = (f"value {value.value}: {value.iou:.2f}, recall {value.recall:.2f}" for value in worst)
    details = (common + "; ".join(texts)).rstrip("; ")
    return f" ({details})" if details else ""


def _overlap(compared: IdentifierAgreement) -> Estimate:
    def iou(chosen: npt.NDArray[np.int64]) -> float:
        return int(compared.intersections[chosen].sum()) / max(1, int(compared.unions[chosen].sum()))

    if len(compared.unions) == 1:
        return unbounded(compared.iou, 1)
    return intervals.resampled(iou, len(compared.unions), confidence=CONFIDENCE)
